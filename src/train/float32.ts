/** The shortest decimal that float32 reads as x, itself a float32: 0.005 for 0.004999999888241291. */
export function shortest(x: number): number {
  for (let digits = 1; digits < 9; digits++) {
    const decimal = Number(x.toPrecision(digits));
    if (Math.fround(decimal) === x) return decimal;
  }
  return Number(x.toPrecision(9));
}
