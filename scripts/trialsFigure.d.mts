export function trialsFigure(report: unknown): string;
export function trialsTable(report: unknown, count?: number): string;
