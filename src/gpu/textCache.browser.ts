/** Texts that outlive the page, by name (`#text-cache`): rows of an IndexedDB. Node gets `textCache.node.ts` with the same names. */

const database = 'forkstep';
const table = 'texts';

/** Where a text lies, for messages. */
export const cachePlace = (name: string): string => `IndexedDB ${database}/${table}/${name}`;

const done = <T>(request: IDBRequest<T>): Promise<T> =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

/** Runs `use` on the table; closes the database afterwards, so that it keeps no other page from a newer version. */
async function withTable<T>(mode: IDBTransactionMode, use: (rows: IDBObjectStore) => IDBRequest<T>): Promise<T> {
  const opening = indexedDB.open(database, 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore(table);
  const opened = await done(opening);
  try {
    const transaction = opened.transaction(table, mode);
    const committed = new Promise<void>((resolve, reject) => {
      transaction.oncomplete = () => resolve();
      transaction.onabort = () => reject(transaction.error);
    });
    const [value] = await Promise.all([done(use(transaction.objectStore(table))), committed]);
    return value;
  } finally {
    opened.close();
  }
}

/** The text of a name, null where there is none. @throws where there is no IndexedDB, as in some private windows */
export async function readCached(name: string): Promise<string | null> {
  return ((await withTable('readonly', (rows) => rows.get(name))) as string | undefined) ?? null;
}

/** Keeps a text, whole or not at all. @throws where it cannot be kept */
export async function writeCached(name: string, text: string): Promise<void> {
  await withTable('readwrite', (rows) => rows.put(text, name));
}
