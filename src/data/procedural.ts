import { AttrError } from '../gpu/errors.ts';
import type { ImageDataset, ImageSet } from './dataset.ts';
import { exactCosSinTurns } from '../nn/exactMath.ts';
import { checkU32, CounterRandom, hash32, STREAM } from '../nn/random.ts';

/**
 * The procedural set: one textured shape an image, 32×32 RGB, made from a seed in about a second, so that training can be
 * seen at work with no download. A class is a shape *and* a texture (five shapes × two textures): either alone leaves
 * chance among what it does not tell. Place, size, rotation, colours, background, spots and noise vary
 * freely and say nothing about the class, so pixels one by one (a linear model) help little.
 *
 * Every byte comes from integer draws and exactly rounded operations (+, −, *, /, √): the same on every machine.
 */

const SIZE = 32;
const PLANE = SIZE * SIZE;

const SHAPES = ['disc', 'square', 'triangle', 'cross', 'ring'] as const;
const TEXTURES = ['striped', 'checked'] as const;
type Shape = (typeof SHAPES)[number];
type Texture = (typeof TEXTURES)[number];

/** Label l is texture l mod 2 on shape ⌊l/2⌋: 'striped disc', 'checked disc', 'striped square', … */
export const PROCEDURAL_CLASSES: readonly string[] = SHAPES.flatMap((shape) => TEXTURES.map((texture) => `${texture} ${shape}`));

/** Of the default training set (seed 0, 2,048 images), per channel on a scale of 0…1; used for every seed and size. */
export const PROCEDURAL_MEAN: readonly number[] = [0.495, 0.4985, 0.5002];
export const PROCEDURAL_STD: readonly number[] = [0.2145, 0.215, 0.214];

export interface ProceduralOptions {
  /** u32. @default 0 */
  seed?: number;
  /** Training images, ≥ 1. @default 2048 */
  train?: number;
  /** Test images, ≥ 1. @default 512 */
  test?: number;
}

/**
 * The procedural set. Image i of either part depends on (seed, part, i) only, so a smaller set is the beginning of a larger one;
 * each ten images in a row have all ten classes.
 * @throws AttrError if seed is not a u32 or a count not an integer ≥ 1
 */
export function proceduralDataset({ seed = 0, train = 2048, test = 512 }: ProceduralOptions = {}): ImageDataset {
  checkU32('proceduralDataset', 'seed', seed);
  return {
    name: 'procedural',
    train: makeSet('train', train, seed, STREAM.proceduralTrain),
    test: makeSet('test', test, seed, STREAM.proceduralTest),
    mean: [...PROCEDURAL_MEAN],
    std: [...PROCEDURAL_STD],
  };
}

function makeSet(part: 'train' | 'test', count: number, seed: number, stream: number): ImageSet {
  if (!Number.isInteger(count) || count < 1) {
    const fix = 'ask for at least one image';
    throw new AttrError({ op: 'proceduralDataset', arg: part, rule: 'must be an integer ≥ 1', got: count, fix });
  }
  const images = new Uint8Array(count * 3 * PLANE);
  const labels = new Uint8Array(count);
  const nClasses = PROCEDURAL_CLASSES.length;
  for (let i = 0; i < count; i++) {
    const block = Math.floor(i / nClasses);
    if (i % nClasses === 0) labels.set(classOrder(hash32(seed, block, stream)).subarray(0, count - i), i);
    const key = hash32(seed, i, stream);
    drawImage(images.subarray(i * 3 * PLANE, (i + 1) * 3 * PLANE), labels[i], key);
  }
  return { name: `procedural ${part}`, images, labels, count, channels: 3, height: SIZE, width: SIZE, classes: [...PROCEDURAL_CLASSES] };
}

/** Sub-streams of one image's key. */
const SCENE = 0;
const NOISE = 1;
const ORDER = 2;

/** A permutation of the classes, for ten images in a row. */
function classOrder(key: number): Uint8Array {
  const random = new CounterRandom(key, ORDER);
  const order = Uint8Array.from(PROCEDURAL_CLASSES, (_, label) => label);
  for (let i = order.length - 1; i >= 1; i--) {
    const j = random.below(i + 1);
    const swapped = order[i];
    order[i] = order[j];
    order[j] = swapped;
  }
  return order;
}

type Rgb = readonly [number, number, number];

interface Scene {
  shape: Shape;
  texture: Texture;
  /** Centre, in pixels. */
  cx: number;
  cy: number;
  /** Half the shape's width, in pixels. */
  radius: number;
  /** Rotation of the shape, 0…1/8 of a turn. */
  cos: number;
  sin: number;
  /** Two waves of the texture: phase p = kx·x + ky·y + p0, in periods. */
  waves: readonly [Wave, Wave];
  /** The texture's two colours, and the background's at two opposite edges. */
  inks: readonly [Rgb, Rgb];
  grounds: readonly [Rgb, Rgb];
  /** How the background runs from one colour to the other: g = gx·x + gy·y + g0, in 0…1. */
  ground: Wave;
  blots: readonly Blot[];
  /** Half-width of the noise, in grey levels. */
  noise: number;
}

interface Wave {
  kx: number;
  ky: number;
  p0: number;
}

/** A soft round spot in the background. */
interface Blot {
  x: number;
  y: number;
  /** 1/radius², radius in pixels. */
  sharpness: number;
  colour: Rgb;
}

function makeScene(label: number, random: CounterRandom): Scene {
  const between = (low: number, high: number): number => low + (high - low) * random.uniform();
  const radius = between(11, 13.5);
  const room = SIZE / 2 - radius;
  const rotation = exactCosSinTurns(between(0, 1 / 8));
  const direction = exactCosSinTurns(random.uniform());
  const period = between(5, 6.5);
  const kx = direction.cos / period;
  const ky = direction.sin / period;
  const slope = exactCosSinTurns(random.uniform());
  const grounds: [Rgb, Rgb] = [softColour(random), softColour(random)];
  const away = [grounds[0], grounds[1]];
  const first = colourAwayFrom(random, away, 0.45);
  const second = colourAwayFrom(random, [first, ...away], 0.5);
  const blots = Array.from({ length: 2 }, () => {
    const r = between(3, 6);
    return { x: between(0, SIZE), y: between(0, SIZE), sharpness: 1 / (r * r), colour: softColour(random) };
  });
  return {
    shape: SHAPES[label >> 1],
    texture: TEXTURES[label & 1],
    cx: SIZE / 2 + between(-room, room),
    cy: SIZE / 2 + between(-room, room),
    radius,
    cos: rotation.cos,
    sin: rotation.sin,
    waves: [
      { kx, ky, p0: random.uniform() },
      { kx: -ky, ky: kx, p0: random.uniform() },
    ],
    inks: [first, second],
    grounds,
    ground: { kx: slope.cos / (2 * SIZE), ky: slope.sin / (2 * SIZE), p0: 0.5 - (slope.cos + slope.sin) / 4 },
    blots,
    noise: between(3, 10),
  };
}

/** A colour of any hue, of middling saturation and lightness: 0…1 each. */
function softColour(random: CounterRandom): Rgb {
  const grey = 0.2 + 0.6 * random.uniform();
  return [grey + 0.36 * (random.uniform() - 0.5), grey + 0.36 * (random.uniform() - 0.5), grey + 0.36 * (random.uniform() - 0.5)];
}

/** A colour at least `distance` (Euclidean, RGB 0…1) from each of `others`; the farthest of 16 draws where none is. */
function colourAwayFrom(random: CounterRandom, others: readonly Rgb[], distance: number): Rgb {
  let best: Rgb = [0, 0, 0];
  let bestDistance = -1;
  for (let attempt = 0; attempt < 16 && bestDistance < distance; attempt++) {
    const colour: Rgb = [random.uniform(), random.uniform(), random.uniform()];
    const nearest = Math.min(...others.map((other) => Math.sqrt(squaredDistance(colour, other))));
    if (nearest > bestDistance) {
      best = colour;
      bestDistance = nearest;
    }
  }
  return best;
}

function squaredDistance(a: Rgb, b: Rgb): number {
  return (a[0] - b[0]) * (a[0] - b[0]) + (a[1] - b[1]) * (a[1] - b[1]) + (a[2] - b[2]) * (a[2] - b[2]);
}

/** Signed distance from a shape of half-width 1 at the origin, about right near the edge; negative inside. */
const shapeDistance: Record<Shape, (u: number, v: number) => number> = {
  disc: (u, v) => Math.sqrt(u * u + v * v) - 0.95,
  square: (u, v) => Math.max(Math.abs(u), Math.abs(v)) - 0.85,
  // Half-planes at 120°: 0.866 = √3/2; inradius 0.6, so the corners lie at 1.2.
  triangle: (u, v) => Math.max(v, 0.8660254037844386 * Math.abs(u) - 0.5 * v) - 0.6,
  cross: (u, v) => {
    const long = Math.max(Math.abs(u), Math.abs(v)) - 1.05;
    return Math.max(long, Math.min(Math.abs(u), Math.abs(v)) - 0.38);
  },
  ring: (u, v) => Math.abs(Math.sqrt(u * u + v * v) - 0.76) - 0.3,
};

/** A triangle wave of period 1 between −1 and 1. */
function triangleWave(p: number): number {
  return 4 * Math.abs(p - Math.floor(p) - 0.5) - 1;
}

/** Share of the second ink, 0…1, at two phases: bands along the first, or the chequer of both. */
const textureShare: Record<Texture, (p: number, q: number) => number> = {
  striped: (p) => clamp01(0.5 + 1.4 * triangleWave(p)),
  checked: (p, q) => clamp01(0.5 + 2.4 * triangleWave(p) * triangleWave(q)),
};

function clamp01(x: number): number {
  return x < 0 ? 0 : x > 1 ? 1 : x;
}

/** Writes one image, u8 [3][32][32]. */
function drawImage(out: Uint8Array, label: number, key: number): void {
  const scene = makeScene(label, new CounterRandom(key, SCENE));
  const { shape, texture, cx, cy, radius, cos, sin, waves, inks, grounds, ground, blots, noise } = scene;
  const distance = shapeDistance[shape];
  const share = textureShare[texture];
  const colour = [0, 0, 0];
  for (let i = 0; i < PLANE; i++) {
    const x = (i % SIZE) + 0.5;
    const y = Math.floor(i / SIZE) + 0.5;
    const g = ground.kx * x + ground.ky * y + ground.p0;
    for (let c = 0; c < 3; c++) colour[c] = grounds[0][c] + (grounds[1][c] - grounds[0][c]) * g;
    for (const blot of blots) {
      const far = 1 - ((x - blot.x) * (x - blot.x) + (y - blot.y) * (y - blot.y)) * blot.sharpness;
      if (far > 0) blend(colour, blot.colour, far * (2 - far) * 0.8);
    }
    const dx = (x - cx) / radius;
    const dy = (y - cy) / radius;
    const cover = clamp01(0.5 - radius * distance(cos * dx + sin * dy, cos * dy - sin * dx));
    if (cover > 0) {
      const t = share(waves[0].kx * x + waves[0].ky * y + waves[0].p0, waves[1].kx * x + waves[1].ky * y + waves[1].p0);
      const ink = [0, 1, 2].map((c) => inks[0][c] + (inks[1][c] - inks[0][c]) * t);
      blend(colour, ink, cover);
    }
    const bits = hash32(key, i, NOISE);
    for (let c = 0; c < 3; c++) {
      // Ten bits a channel, as −1…1.
      const jitter = ((bits >>> (10 * c)) & 1023) / 511.5 - 1;
      out[c * PLANE + i] = Math.floor(clamp01(colour[c] + (noise / 255) * jitter) * 255 + 0.5);
    }
  }
}

function blend(colour: number[], over: readonly number[], amount: number): void {
  for (let c = 0; c < 3; c++) colour[c] += (over[c] - colour[c]) * amount;
}
