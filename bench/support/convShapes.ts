/** The convolutions that libraries are compared by. */
export interface ConvShape {
  readonly batch: number;
  /** Of the square input. */
  readonly size: number;
  readonly cin: number;
  readonly cout: number;
  readonly kernel: 1 | 3;
  readonly stride: 1 | 2;
}

/** ResNet18's on CIFAR at width 64, batch 8, and at width 16, batch 32. */
export const convShapes: readonly ConvShape[] = [[8, 64], [32, 16]].flatMap(([batch, width]) => [
  ...[0, 1, 2, 3].map((stage) => ({ batch, size: 32 >> stage, cin: width << stage, cout: width << stage, kernel: 3, stride: 1 }) as const),
  { batch, size: 32, cin: width, cout: 2 * width, kernel: 3, stride: 2 } as const,
  { batch, size: 32, cin: width, cout: 2 * width, kernel: 1, stride: 2 } as const,
]);

export const convName = ({ batch, size, cin, cout, kernel, stride }: ConvShape): string =>
  `b${batch} ${kernel}×${kernel}${stride > 1 ? ` s${stride}` : ''} ${cin}→${cout}, ${size}²`;
