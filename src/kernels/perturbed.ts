/**
 * How kernels form a perturbed parameter, a·W + Σ_k c_k·D_k for the trial of their z, while they load W.
 *
 * Coefficients lie trial by trial, c_1 … c_K. Where trials are scaled, a − 1 comes before them and the value is
 * W + (a − 1)·W + Σ_k c_k·D_k, added in this order: at a = 1 that is the unscaled value bit by bit, whatever multiply-adds a compiler
 * contracts, and 1 − ηλ keeps the digits of ηλ.
 */

/** Names of the direction bindings: `d0`, `d1`, … */
export const directionNames = (directions: number): string[] => Array.from({ length: directions }, (_, k) => `d${k}`);

/** Of a kernel's name: which variant it is. */
export const perturbedName = (directions: number, scaled: boolean): string =>
  directions ? `_perturbed${directions}${scaled ? '_scaled' : ''}` : '';

/** WGSL that reads the coefficients of `trial` from the binding `coefficients`: `c0`, `c1`, …; `grow` = a − 1 where trials are scaled. */
export function readCoefficients(directions: number, scaled: boolean, trial: string): string {
  const names = [...(scaled ? ['grow'] : []), ...directionNames(directions).map((_, k) => `c${k}`)];
  return names.map((name, i) => `let ${name} = coefficients[${trial} * ${names.length}u + ${i}u];`).join(' ');
}

/** WGSL that turns the variable `value`, which holds elements of W, into the perturbed ones; `element(k)` is the WGSL of D_k's. */
export function formPerturbed(directions: number, scaled: boolean, value: string, element: (k: number) => string): string {
  const terms = directionNames(directions).map((_, k) => `${value} += c${k} * ${element(k)};`);
  return [...(scaled ? [`${value} += grow * ${value};`] : []), ...terms].join(' ');
}
