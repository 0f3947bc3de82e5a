/**
 * What a convolution does to its input while it loads it: nothing, or the norm and the activation before it, act((x − mean)·scale + bias), by
 * `x_affine` [4][cin4] = mean | scale | bias | invStd. Zeros around the image stay zeros; NaN stays NaN.
 */
import { read, relu4, type Binding } from './contract.ts';

export type ConvInput = 'plain' | 'affine' | 'affineRelu';

/** Of a kernel's name: which variant it is. */
export const inputName: Record<ConvInput, string> = { plain: '', affine: '_normalized', affineRelu: '_normalizedRelu' };

export const inputBindings = (input: ConvInput): Record<string, Binding> => (input === 'plain' ? {} : { x_affine: read('vec4f') });

/** The three vectors of four channels that x goes through, by name, given the WGSL of the first one's place. */
export const inputVectors = (input: ConvInput, at: string): Record<string, string> =>
  input === 'plain' ? {} : { center_of_x: `x_affine[${at}]`, factor_of_x: `x_affine[${at} + u.cin4]`, offset_of_x: `x_affine[${at} + 2u * u.cin4]` };

/** WGSL that declares the vectors, their names ending in `suffix`. */
export const declareVectors = (input: ConvInput, at: string, suffix = ''): string =>
  Object.entries(inputVectors(input, at)).map(([name, value]) => `let ${name}${suffix} = ${value};`).join(' ');

const vectorNames = (suffix: string): string => `center_of_x${suffix}, factor_of_x${suffix}, offset_of_x${suffix}`;

/** WGSL arguments of `pixel_of_x` beyond the plain ones: the vectors. */
export const inputArguments = (input: ConvInput, suffix = ''): string => (input === 'plain' ? '' : `, ${vectorNames(suffix)}`);

/** WGSL of a vec4 of x as it enters the product; the vectors are in scope. */
export const ofInput = (input: ConvInput, value: string): string => (input === 'plain' ? value : `normalized(${value}, ${vectorNames('')})`);

export const inputFunctions = (input: ConvInput): string =>
  input === 'plain' ? '' : /* wgsl */ `${input === 'affineRelu' ? relu4 : ''}
fn normalized(value: vec4f, center: vec4f, factor: vec4f, shift: vec4f) -> vec4f {
  let z = (value - center) * factor + shift;
  return operand(${input === 'affineRelu' ? 'relu4(z)' : 'z'});
}`;

/** A vec4 of x as it enters the product, zeros outside the image. */
export const pixelOfX = (input: ConvInput): string => /* wgsl */ `
fn pixel_of_x(index: i32, ih: i32, iw: i32, ok: bool${input === 'plain' ? '' : ', center_of_x: vec4f, factor_of_x: vec4f, offset_of_x: vec4f'}) -> vec4f {
  let inside = ok && u32(ih) < u.h && u32(iw) < u.w;
  return select(vec4f(), ${ofInput(input, 'load_x(select(0u, u32(index), inside))')}, inside);
}`;
