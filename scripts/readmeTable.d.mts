export const tableReports: readonly string[];
export function benchTable(folder?: string): string;
export function markedTable(text: string, mark?: string): string;
export function withTable(text: string, table: string, mark?: string): string;
