import { describe, expect, it } from 'vitest';
import { contourSegments } from '../../src/cli/figure/contours.ts';
import { curveFigure, type CurveFigure } from '../../src/cli/figure/curve.ts';
import { planeFigure } from '../../src/cli/figure/plane.ts';
import { linearScale, logScale } from '../../src/cli/report/scale.ts';

/** Every element is closed in order, nothing is loaded, no number went missing. */
function expectSound(svg: string): void {
  expect(svg.startsWith('<svg xmlns="http://www.w3.org/2000/svg"')).toBe(true);
  expect(svg.slice(svg.indexOf('>'))).not.toMatch(/https?:|href|@import|<script|<image/i);
  expect(svg.replace(/<title>[^<]*<\/title>/g, '')).not.toMatch(/NaN|undefined|Infinity/);
  const open: string[] = [];
  for (const [, close, name, selfClosed] of svg.matchAll(/<(\/?)([a-zA-Z]+)[^>]*?(\/?)>/g)) {
    if (selfClosed === '/') continue;
    if (close === '/') expect(open.pop()).toBe(name);
    else open.push(name);
  }
  expect(open).toEqual([]);
}

describe('contourSegments', () => {
  const grid = (f: (x: number, y: number) => number, n: number) =>
    Array.from({ length: n }, (_, y) => Array.from({ length: n }, (_, x) => f(x, y)));

  it('follows a linear function exactly, from edge to edge', () => {
    const segments = contourSegments(
      grid((x, y) => 2 * x + y, 5),
      5.5,
    );
    for (const [x, y] of segments.flat()) expect(2 * x + y).toBeCloseTo(5.5, 12);
    const ys = segments.flat().map(([, y]) => y);
    expect([Math.min(...ys), Math.max(...ys)]).toEqual([0, 4]);
    expect(segments.reduce((length, [a, b]) => length + Math.hypot(a[0] - b[0], a[1] - b[1]), 0)).toBeCloseTo(Math.hypot(2, 4), 12);
  });

  it('closes a circle', () => {
    const segments = contourSegments(
      grid((x, y) => (x - 10) ** 2 + (y - 10) ** 2, 21),
      49.5,
    );
    const ends = segments.flat().map(([x, y]) => `${x.toFixed(9)} ${y.toFixed(9)}`);
    for (const end of ends) expect(ends.filter((other) => other === end)).toHaveLength(2);
    expect(
      segments.reduce((length, [a, b]) => length + Math.hypot(a[0] - b[0], a[1] - b[1]), 0) / (2 * Math.PI * Math.sqrt(49.5)),
    ).toBeCloseTo(1, 2);
  });

  it('tells a saddle’s two ways apart by its middle', () => {
    const cut = (values: number[][], level: number) =>
      contourSegments(values, level).map(([a, b]) => [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2]);
    // High corners at (0, 0) and (1, 1): with a high middle the low corners are cut off.
    expect(
      cut(
        [
          [4, 0],
          [0, 4],
        ],
        1,
      ),
    ).toEqual([
      [0.875, 0.125],
      [0.125, 0.875],
    ]);
    expect(
      cut(
        [
          [4, 0],
          [0, 4],
        ],
        3,
      ),
    ).toEqual([
      [0.125, 0.125],
      [0.875, 0.875],
    ]);
  });

  it('has nothing where the level is not reached, or a corner is not finite', () => {
    expect(
      contourSegments(
        [
          [0, 1],
          [2, 3],
        ],
        5,
      ),
    ).toEqual([]);
    expect(
      contourSegments(
        [
          [0, 1],
          [2, NaN],
        ],
        0.5,
      ),
    ).toEqual([]);
    expect(
      contourSegments(
        [
          [1, 1],
          [1, 1],
        ],
        1,
      ),
    ).toEqual([]);
  });
});

const curve = (change: Partial<CurveFigure> = {}): CurveFigure => ({
  title: 'T',
  subtitle: 'S',
  x: logScale(0.01, 10),
  y: linearScale(0, 4, 4),
  xLabel: 'rate',
  yLabel: 'loss',
  curves: [
    {
      color: 'a',
      line: 'solid',
      hasDots: true,
      name: 'one',
      points: [
        [0.01, 1],
        [0.1, 3],
        [1, NaN],
        [10, 2],
      ],
    },
  ],
  rules: [{ x: 0.1, note: 'here' }],
  ...change,
});

describe('curveFigure', () => {
  it('puts points where the axes say, leaves a gap where a loss is not finite, and crosses it', () => {
    const svg = curveFigure(curve());
    expectSound(svg);
    const tickY = (label: string) => Number(new RegExp(`y="([0-9.]+)"[^>]*>${label}<`).exec(svg)![1]);
    const tickX = (label: string) => Number(new RegExp(`x="([0-9.]+)" y="[0-9.]+" text-anchor="middle">${label}<`).exec(svg)![1]);
    const dots = [...svg.matchAll(/class="dot" cx="([0-9.]+)" cy="([0-9.]+)"/g)].map(([, x, y]) => [Number(x), Number(y)]);
    expect(dots).toEqual([
      [tickX('0.01'), tickY('1')],
      [tickX('0.1'), tickY('3')],
      [tickX('10'), tickY('2')],
    ]);
    expect([...svg.matchAll(/<path class="curve" d="([^"]*)"/g)].map(([, d]) => d)).toEqual([`M${dots[0].join(' ')}L${dots[1].join(' ')}`]);
    expect([...svg.matchAll(/class="cross" d="M([0-9.]+) /g)].map(([, x]) => Number(x))).toEqual([tickX('1')]);
    expect(svg).toContain(`<path class="rule" d="M${tickX('0.1')} `);
    // The note is written below the crosses, 4 units to each side of their middle.
    const [crossY, noteY] = [/class="cross" d="M[0-9.]+ ([0-9.]+)m/, /y="([0-9.]+)"[^>]*>here</].map((place) =>
      Number(place.exec(svg)![1]),
    );
    expect(noteY - 12).toBeGreaterThan(crossY + 4);
  });

  it('squeezes labels of the y axis that are wider than its margin', () => {
    const svg = curveFigure(curve({ y: linearScale(2.3640427, 2.3640433, 6) }));
    expect(svg).toMatch(/text-anchor="end" textLength="56" lengthAdjust="spacingAndGlyphs">2\.3640431</);
    expect(curveFigure(curve())).not.toContain('textLength');
  });

  it('has a legend where there are several curves, and escapes what it is told', () => {
    const [one] = curve().curves;
    const svg = curveFigure(
      curve({ title: '<T> & "t"', curves: [one, { ...one, color: 'b', line: 'dashed', name: 'two <2>' }], level: { y: 2, note: 'level' } }),
    );
    expectSound(svg);
    expect(svg).toContain('&lt;T&gt; &amp; &quot;t&quot;');
    expect(svg).toContain('>two &lt;2&gt;</text>');
    expect(svg).toContain('>level</text>');
    expect(curveFigure(curve())).not.toContain('>one</text>');
  });
});

describe('planeFigure', () => {
  const [x, y] = [
    [-1, 0, 1],
    [-2, 0],
  ];
  const draw = (values: number[][]) => planeFigure({ title: 'T', subtitle: 'S', x, y, values, xLabel: 'α', yLabel: 'β' });
  const cells = (svg: string) => [
    ...svg.matchAll(/<rect (?:class="hole" )?x="([0-9.]+)" y="([0-9.]+)"[^>]*?(?:fill="(#[0-9a-f]{6})")?><title>([^<]*)<\/title>/g),
  ];

  it('has a cell a loss, the first row below, and the origin marked', () => {
    const svg = draw([
      [1, 2, 3],
      [4, 5, NaN],
    ]);
    expectSound(svg);
    const found = cells(svg).map(([, left, top, fill, title]) => ({ left: Number(left), top: Number(top), fill, title }));
    expect(found.map(({ title }) => title)).toEqual(['-1, -2: 1', '0, -2: 2', '1, -2: 3', '-1, 0: 4', '0, 0: 5', '1, 0: NaN']);
    expect(found[0].top).toBeGreaterThan(found[3].top);
    expect(found[0].left).toBeLessThan(found[1].left);
    expect(found.map(({ fill }) => fill).filter(Boolean)).toHaveLength(5);
    const brightness = (fill: string) =>
      [1, 3, 5].reduce((sum, at, i) => sum + [0.3, 0.59, 0.11][i] * parseInt(fill.slice(at, at + 2), 16), 0);
    const bright = found.slice(0, 5).map(({ fill }) => brightness(fill));
    expect(bright).toEqual([...bright].sort((a, b) => a - b));
    // θ is in the middle of the second cell of the upper row.
    const [, across, down] = /class="mark" d="M([0-9.]+) ([0-9.]+)m/.exec(svg)!.map(Number);
    expect([across, down]).toEqual([found[4].left + 320 / 3, found[4].top + 160].map((v) => expect.closeTo(v, 0)));
  });

  it('stands where all losses are equal, negative, or none is finite', () => {
    for (const value of [1, -1, 0, NaN, Infinity])
      expectSound(
        draw([
          [value, value, value],
          [value, value, value],
        ]),
      );
    expect(
      cells(
        draw([
          [NaN, NaN, NaN],
          [NaN, NaN, NaN],
        ]),
      ),
    ).toHaveLength(6);
  });
});
