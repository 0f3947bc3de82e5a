/** A profile as a flame graph: step → plan → direction → stage → layer → dispatch, each as wide as it takes time, in order of first use. */
import type { DispatchProfile, Peaks, StepProfile } from '../../train/index.ts';
import { svgDocument, units, type FigureText } from '../figure/document.ts';
import { formatNumber } from '../format.ts';
import { escapeHtml } from '../report/html.ts';
import { ratesOf } from './table.ts';

const width = 1920;
const margin = 20;
const rowHeight = 24;
const characterWidth = 6;

/** What time is spent on, by the kernels' names. */
const kinds = [
  { name: 'convolutions', pattern: /^conv2d|^sumPartials/, color: 'var(--a)' },
  { name: 'batch norms', pattern: /^batchNorm/, color: 'var(--b)' },
  { name: 'other', pattern: /^/, color: 'var(--c)' },
] as const;
const kindOf = (kernel: string) => kinds.find(({ pattern }) => pattern.test(kernel))!;

export interface Frame {
  readonly name: string;
  ms: number;
  flops: number;
  bytes: number;
  dispatches: number;
  readonly children: Map<string, Frame>;
  /** Of a dispatch. */
  readonly kernel: string | null;
}

const frameOf = (name: string, kernel: string | null = null): Frame => ({
  name,
  ms: 0,
  flops: 0,
  bytes: 0,
  dispatches: 0,
  children: new Map(),
  kernel,
});

/** `layer1` of `layer1.0.conv1` and of `relu after layer1.0.bn2`. */
const stageOf = (layer: string): string => layer.split(' ').at(-1)!.split('.')[0];

/** Names from a plan down to a dispatch; a layer that is a stage or a kernel by itself is named once. */
function pathOf({ plan, direction, layer, kernel }: DispatchProfile): string[] {
  if (direction === null) return [plan, kernel];
  const stage = stageOf(layer);
  // The stage is named above the layer.
  return stage === layer ? [plan, direction, stage, kernel] : [plan, direction, stage, layer.replace(`${stage}.`, ''), kernel];
}

/** The profile as a tree; frames of one name under one parent are one. */
export function flameTree({ part, dispatches }: StepProfile): Frame {
  const root = frameOf(part);
  for (const one of dispatches) {
    const path = pathOf(one);
    const frames = [root];
    for (const [depth, name] of path.entries()) {
      const { children } = frames[depth];
      if (!children.has(name)) children.set(name, frameOf(name, depth === path.length - 1 ? one.kernel : null));
      frames.push(children.get(name)!);
    }
    for (const frame of frames) {
      frame.ms += one.ms;
      frame.flops += one.flops;
      frame.bytes += one.bytes;
      frame.dispatches++;
    }
  }
  return root;
}

/** The name and the time where a box holds them, else as much of the name as it does; nothing of it where that would be a letter or two. */
function fitText({ name, ms }: Frame, boxWidth: number): string {
  const room = Math.floor((boxWidth - 6) / characterWidth);
  const whole = `${name}  ${formatNumber(ms, 3)} ms`;
  if (whole.length <= room) return whole;
  if (name.length <= room) return name;
  return room < 4 ? '' : `${name.slice(0, room - 1)}…`;
}

function tooltip(frame: Frame, path: readonly string[], totalMs: number, peaks: Peaks): string {
  const { gflopsPerSecond, gigabytesPerSecond, ofPeak } = ratesOf(frame, peaks);
  const count = frame.dispatches === 1 ? '1 dispatch' : `${frame.dispatches} dispatches`;
  const lines = [
    path.join(' → '),
    `${frame.ms.toFixed(3)} ms, ${totalMs > 0 ? ((100 * frame.ms) / totalMs).toFixed(1) : '–'} % of all, ${count}`,
    ...(gflopsPerSecond === null
      ? []
      : [`${formatNumber(frame.flops / 1e9, 3)} GFLOP, ${formatNumber(gflopsPerSecond, 3)} GFLOP/s`]),
    ...(gigabytesPerSecond === null ? [] : [`${formatNumber(frame.bytes / 1e6, 3)} MB, ${formatNumber(gigabytesPerSecond, 3)} GB/s`]),
    ...(frame.kernel !== null && ofPeak ? [`${(100 * ofPeak.share).toFixed(1)} % of the ${ofPeak.peak} peak`] : []),
  ];
  return lines.join('\n');
}

/** Colours of what a frame's time goes to, so that a layer's boxes look like what is in them. */
function mainKind(frame: Frame): (typeof kinds)[number] {
  if (frame.kernel !== null) return kindOf(frame.kernel);
  const ms = new Map<(typeof kinds)[number], number>();
  const visit = (one: Frame): void => {
    if (one.kernel !== null) ms.set(kindOf(one.kernel), (ms.get(kindOf(one.kernel)) ?? 0) + one.ms);
    for (const child of one.children.values()) visit(child);
  };
  visit(frame);
  return kinds.reduce((best, kind) => ((ms.get(kind) ?? 0) > (ms.get(best) ?? 0) ? kind : best));
}

const css = `
.box{stroke:var(--paper);stroke-width:.8}
.box.whole{fill:var(--grid);stroke:var(--line)}
.boxes text{fill:#fff;font-size:11px;pointer-events:none}
.boxes text.whole{fill:var(--ink)}
.boxes g:hover>rect{stroke:var(--ink);stroke-width:1.4}
`;

/** Frames that hold layers are grey, as they hold everything; from the layers down colours tell the kind. */
function drawFrames(root: Frame, peaks: Peaks): { body: string; height: number } {
  const scale = root.ms > 0 ? (width - 2 * margin) / root.ms : 0;
  const parts: string[] = [];
  let deepest = 0;
  const draw = (frame: Frame, x: number, depth: number, path: readonly string[], isInLayer: boolean): void => {
    deepest = Math.max(deepest, depth);
    const isWhole = !isInLayer && frame.kernel === null;
    const boxWidth = frame.ms * scale;
    const text = fitText(frame, boxWidth);
    const y = depth * rowHeight;
    const paint = isWhole ? 'class="box whole"' : `class="box" style="fill:${mainKind(frame).color};fill-opacity:${frame.kernel === null ? 0.8 : 1}"`;
    parts.push(
      `<g><title>${escapeHtml(tooltip(frame, path, root.ms, peaks))}</title>` +
        `<rect ${paint} x="${units(x)}" y="${y}" width="${units(boxWidth)}" height="${rowHeight - 2}" rx="2"/>` +
        (text === '' ? '' : `<text${isWhole ? ' class="whole"' : ''} x="${units(x + 3)}" y="${y + 15}">${escapeHtml(text)}</text>`) +
        '</g>',
    );
    let left = x;
    // Plans and directions are the first two levels below the root.
    for (const child of frame.children.values()) {
      draw(child, left, depth + 1, [...path, child.name], depth >= 2);
      left += child.ms * scale;
    }
  };
  draw(root, margin, 0, [root.name], false);
  return { body: `<style>${css}</style><g class="boxes">${parts.join('')}</g>`, height: (deepest + 1) * rowHeight };
}

function legend({ dispatches }: StepProfile, totalMs: number, y: number): string {
  let x = margin;
  return kinds
    .map((kind) => {
      const ms = dispatches.filter(({ kernel }) => kindOf(kernel) === kind).reduce((sum, one) => sum + one.ms, 0);
      const text = `${kind.name} ${totalMs > 0 ? ((100 * ms) / totalMs).toFixed(1) : '–'} %`;
      const drawn = `<rect x="${x}" y="${y}" width="12" height="12" rx="2" style="fill:${kind.color}"/><text x="${x + 18}" y="${y + 10.5}">${text}</text>`;
      x += 40 + text.length * 7;
      return drawn;
    })
    .join('');
}

/** The whole SVG. */
export function flameFigure(profile: StepProfile, text: FigureText): string {
  const root = flameTree(profile);
  const { body, height } = drawFrames(root, profile.peaks);
  return svgDocument(text, `${body}${legend(profile, root.ms, height + 14)}`, height + 44, width);
}
