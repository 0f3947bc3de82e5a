/** Measured choices that outlive the process: one text an adapter, driver and runtime. */
import type { AdapterSummary } from '../../gpu/device.ts';

/** Counts changes of what is kept and how. */
const format = 1;

/** Texts by name, as `#text-cache` keeps them. */
export interface TextStore {
  /** @throws where there is one that cannot be read */
  read(name: string): Promise<string | null>;
  /** Keeps a text whole or not at all. @throws where it cannot be written */
  write(name: string, text: string): Promise<void>;
  /** Where it lies, for messages. */
  place(name: string): string;
}

export interface Entry {
  /** Name of the choice. */
  readonly choice: string;
  /** Digest of the kernels that were compared: with others the choice is made anew. */
  readonly kernels: string;
  /** Time of the choice in times of the estimated one's. */
  readonly timesFirst: number;
}

/** What measured choices hold for. */
export interface Machine {
  readonly adapter: AdapterSummary;
  readonly runtime: string;
}

/** FNV-1a, twice 32 bits, in hexadecimal: a name, no protection. */
export function digest(text: string): string {
  let [a, b] = [0x811c9dc5, 0xcbf29ce4];
  for (let i = 0; i < text.length; i++) {
    a = Math.imul(a ^ text.charCodeAt(i), 0x01000193);
    b = Math.imul(b ^ text.charCodeAt(i), 0x01000193) ^ (a >>> 15);
  }
  return [a, b].map((half) => (half >>> 0).toString(16).padStart(8, '0')).join('');
}

const identity = ({ adapter, runtime }: Machine): string => JSON.stringify([format, runtime, Object.entries(adapter).sort()]);

/** Name of the text of a machine. */
export const recordName = (machine: Machine): string => `tuning-${digest(identity(machine))}.json`;

const isEntry = (value: unknown): value is Entry => {
  const { choice, kernels, timesFirst } = (value ?? {}) as Partial<Entry>;
  return typeof choice === 'string' && typeof kernels === 'string' && typeof timesFirst === 'number';
};

/** The entries of a text. @throws Error saying what is wrong with it */
function parse(text: string, machine: Machine): Map<string, Entry> {
  const { choices, ...of } = JSON.parse(text) as Machine & { format: number; choices: Record<string, unknown> };
  if (of.format !== format || identity(of) !== identity(machine)) throw new Error('it is of another format or machine');
  const entries = Object.entries(choices);
  const wrong = entries.find(([, entry]) => !isEntry(entry));
  if (wrong) throw new Error(`${wrong[0]} holds no choice`);
  return new Map(entries as [string, Entry][]);
}

export class TuningRecord {
  readonly name: string;
  #entries = new Map<string, Entry>();
  readonly #own = new Map<string, Entry>();
  #hasWarned = false;

  private constructor(
    readonly machine: Machine,
    readonly store: TextStore,
    private readonly warn: (message: string) => void,
  ) {
    this.name = recordName(machine);
  }

  /** The record of a machine, empty where there is none. One that is damaged or foreign is told of and ignored. */
  static async open(machine: Machine, store: TextStore, warn: (message: string) => void): Promise<TuningRecord> {
    const record = new TuningRecord(machine, store, warn);
    try {
      record.#entries = await record.#read();
    } catch (error) {
      record.#tell(`the measured choices in ${store.place(record.name)} cannot be used and are made anew`, error);
    }
    return record;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** The choice for a problem, null where there is none for these kernels. */
  choiceFor(problem: string, kernels: string): string | null {
    const entry = this.#entries.get(problem);
    return entry && entry.kernels === kernels ? entry.choice : null;
  }

  /** Keeps a choice, beside what other processes have kept since. Where that fails the run goes on: told once. */
  async keep(problem: string, entry: Entry): Promise<void> {
    this.#own.set(problem, entry);
    this.#entries.set(problem, entry);
    const kept = await this.#read().catch(() => new Map<string, Entry>());
    const choices = Object.fromEntries([...new Map([...kept, ...this.#own])].sort(([a], [b]) => (a < b ? -1 : 1)));
    try {
      await this.store.write(this.name, `${JSON.stringify({ format, ...this.machine, choices }, null, 1)}\n`);
    } catch (error) {
      this.#tell(`measured choices cannot be kept in ${this.store.place(this.name)}: a later run may choose otherwise`, error);
    }
  }

  async #read(): Promise<Map<string, Entry>> {
    const text = await this.store.read(this.name);
    return text === null ? new Map() : parse(text, this.machine);
  }

  #tell(message: string, error: unknown): void {
    if (!this.#hasWarned) this.warn(`forkstep: ${message} (${error instanceof Error ? error.message : String(error)})`);
    this.#hasWarned = true;
  }
}
