export const studyDocument: string;
export const studyResults: string;
