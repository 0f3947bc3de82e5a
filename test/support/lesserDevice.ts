import { Device } from '../../src/gpu/device.ts';

/** A device that says it can do less than it can. */
export class LesserDevice extends Device {
  readonly #limits: GPUSupportedLimits;

  constructor(whole: Device, less: Partial<Record<keyof GPUSupportedLimits, number>>) {
    super(whole.gpu, whole.adapter);
    this.#limits = new Proxy(whole.limits, {
      get: (limits, name) => less[name as keyof GPUSupportedLimits] ?? Reflect.get(limits, name, limits),
    });
  }

  override get limits(): GPUSupportedLimits {
    return this.#limits;
  }
}
