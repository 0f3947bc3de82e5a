/**
 * The items whose names contain one of the words, in their own order; all of them where there are no words. A word that is a whole name means that
 * item alone.
 * @param what what an item is, for the message
 * @throws Error that gives the names, where no name contains one of the words
 */
export function matching<T>(what: string, items: readonly T[], nameOf: (item: T) => string, words: readonly string[]): T[] {
  const lost = words.find((word) => !items.some((item) => nameOf(item).includes(word)));
  if (lost !== undefined) throw new Error(`no ${what} has ${JSON.stringify(lost)} in its name; there is ${items.map(nameOf).join('; ')}`);
  const isMeant = (name: string) => (word: string) => (items.some((item) => nameOf(item) === word) ? name === word : name.includes(word));
  return items.filter((item) => words.length === 0 || words.some(isMeant(nameOf(item))));
}
