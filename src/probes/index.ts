/** Research probes on `lossesAlong`: each answers a question about θ by one fused evaluation, and leaves θ as it is. */
export { curvature, type Curvature, type CurvatureOptions } from './curvature.ts';
export { filterNormalised, randomDirections } from './directions.ts';
export { linearGrid, logGrid } from './grids.ts';
export { interpolate, type InterpolateOptions } from './interpolate.ts';
export { plane, slice, type Plane, type PlaneOptions, type Slice, type SliceOptions } from './landscape.ts';
export { gradientLine, type GradientLine, type Line, type LineOptions, type ProbeOptions } from './line.ts';
export { armijo, goldstein, type Candidate, type LineSearchOptions, type LineSearchResult } from './lineSearch.ts';
export { fitParabola, type Parabola } from './parabola.ts';
export { rateRange, type RateRange, type RateRangeOptions } from './rateRange.ts';
