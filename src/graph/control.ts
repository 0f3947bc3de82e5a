/** The few words that the host writes before a step, and everything else on the GPU reads. */
import type { Memory } from './memory.ts';
import type { Storage } from './tensor.ts';

/** Word of each entry in the control buffer, u32. */
export const controlWords = {
  /** Where in the index buffer the batch begins. */
  cursor: 0,
  /** Samples drawn before the batch: counter of its random crops. */
  counter: 1,
  seed: 2,
  /** 1 on the optimizer's first step. */
  first: 3,
  /** Where in the step log this step is written. */
  slot: 4,
  /** Images of an evaluation batch that count. */
  rows: 5,
  /** As cursor and counter, for the images after the batch, on which trials may be scored. */
  scoreCursor: 6,
  scoreCounter: 7,
  /** Where in the log of events this step's is written. */
  eventSlot: 8,
  /** Bits of the f32 that the schedule's scale is multiplied by. */
  envelope: 9,
  /** Updates that the host knows to have been skipped. */
  skipped: 10,
  /** 1 where an event may raise the scale as far as its bounds; else to the highest that those had left. */
  searching: 11,
} as const;

export type ControlWord = keyof typeof controlWords;

/** A u32 in GPU memory. */
export interface Word {
  readonly storage: Storage;
  readonly word: number;
}

/** The bits of a number as f32. */
export const floatBits = (value: number): number => new Uint32Array(Float32Array.of(value).buffer)[0];

export class Control {
  readonly storage: Storage;
  readonly #words = new Uint32Array(Object.keys(controlWords).length);

  constructor(readonly memory: Memory) {
    this.storage = memory.storage('slots', 'control', this.#words.byteLength);
  }

  at(name: ControlWord): Word {
    return { storage: this.storage, word: controlWords[name] };
  }

  /** Writes some of the words; the others stay. In order with what is submitted before and after. */
  write(values: Partial<Record<ControlWord, number>>): void {
    for (const [name, value] of Object.entries(values)) this.#words[controlWords[name as ControlWord]] = value;
    this.memory.device.gpu.queue.writeBuffer(this.storage.buffer, this.storage.offset, this.#words);
  }
}
