/** The README's program and what it prints. */

/** The fenced block of that language which follows the comment `<!-- marker -->`. @throws Error unless there is exactly one */
export function markedBlock(markdown: string, marker: string, language: string): string {
  const pattern = new RegExp(`<!-- ${marker} -->\\s*\\n\`\`\`${language}\\n([\\s\\S]*?)\\n\`\`\``, 'g');
  const blocks = [...markdown.matchAll(pattern)];
  if (blocks.length !== 1) throw new Error(`expected one \`\`\`${language} block after <!-- ${marker} -->, found ${blocks.length}`);
  return blocks[0][1];
}

const NUMBER = /[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[-+]?\d+)?/gi;

/** A line's text with each number replaced, and the numbers. */
function split(line: string): { words: string; numbers: number[] } {
  const numbers = (line.match(NUMBER) ?? []).map((text) => Number(text.replaceAll(',', '')));
  return { words: line.replace(NUMBER, '#').replace(/\s+/g, ' ').trim(), numbers };
}

/**
 * Where two printed outputs differ: in the number of lines, in a word, or in a number by more than the tolerance (relative to the
 * expected one).
 * @returns one sentence each; [] where they agree
 */
export function outputDifferences(actual: string, expected: string, rtol: number): string[] {
  const [got, want] = [actual, expected].map((text) => text.trimEnd().split('\n'));
  if (got.length !== want.length) return [`expected ${want.length} lines, got ${got.length}:\n${actual}`];
  return want.flatMap((line, i) => {
    const [a, b] = [split(got[i]), split(line)];
    const isClose =
      a.numbers.length === b.numbers.length && b.numbers.every((number, k) => Math.abs(a.numbers[k] - number) <= rtol * Math.abs(number));
    return a.words === b.words && isClose ? [] : [`line ${i + 1}: expected ${JSON.stringify(line)}, got ${JSON.stringify(got[i])}`];
  });
}
