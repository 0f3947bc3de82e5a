/** float16 in float64: what a number becomes when it is stored as f16. */
import { nd, type Nd } from './nd.ts';

/** Round to nearest, ties to even; ±Infinity from 65520 on. */
export function roundHalf(x: number): number {
  if (!Number.isFinite(x) || x === 0) return x;
  // Places are 2^-24 apart below 2^-14, and 1024 between powers of two above.
  const place = 2 ** (Math.max(Math.floor(Math.log2(Math.abs(x))), -14) - 10);
  const places = x / place;
  const floor = Math.floor(places);
  const rest = places - floor;
  const rounded = (rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor) * place;
  return Math.abs(rounded) >= 65520 ? Math.sign(x) * Infinity : rounded;
}

/** By way of float32, as numbers come to the GPU: near a tie the two roundings may come to another f16 than one. */
export const roundHalves = ({ shape, data }: Nd): Nd => nd(shape, Array.from(data, (value) => roundHalf(Math.fround(value))));
