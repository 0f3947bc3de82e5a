/** Figures as SVG files of their own: they load nothing, and follow light and dark. */
import { frame } from '../report/chart.ts';
import { escapeHtml } from '../report/html.ts';

/** Room above a plot for title, subtitle and the name of the y axis, in viewBox units. */
export const header = 84;

const css = `
svg{--paper:#fff;--ink:#1b2330;--soft:#5d6878;--line:#c9d0d9;--grid:#e9edf1;--a:#2563c9;--b:#d9620f;--c:#15875f;--bad:#b42318;
font:12.5px system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",sans-serif;font-variant-numeric:tabular-nums}
@media (prefers-color-scheme:dark){svg{--paper:#191e26;--ink:#e6e9ef;--soft:#9aa5b5;--line:#3a4453;--grid:#262d38;--a:#6ea8ff;--b:#ff9d5c;
--c:#4fd1a1;--bad:#ff8a7a}}
.paper{fill:var(--paper)}
text{fill:var(--soft)}
.title{fill:var(--ink);font-size:18px;font-weight:650}
.sub{font-size:13px}
.axis,.tick{stroke:var(--line);fill:none}
.grid{stroke:var(--grid);fill:none}
.curve{fill:none;stroke-width:2.2;stroke-linejoin:round;stroke-linecap:round}
.dashed{stroke-dasharray:5 5;stroke-width:1.5}
.dot{fill:var(--paper);stroke-width:1.8}
.rule{stroke:var(--soft);stroke-dasharray:3 4;fill:none}
.note{fill:var(--ink);paint-order:stroke;stroke:var(--paper);stroke-width:4px;stroke-linejoin:round}
.cross{stroke:var(--bad);stroke-width:2.2;fill:none;stroke-linecap:round}
.contour{fill:none;stroke:#fff;stroke-opacity:.7;stroke-width:1.1}
.contour.bright{stroke:#0b1020;stroke-opacity:.5}
.hole{fill:var(--grid)}
.mark{fill:none;stroke:#fff;stroke-width:2}
.mark.under{stroke:#000;stroke-opacity:.55;stroke-width:4}
`;

/** viewBox units with one decimal. */
export const units = (v: number): string => String(Math.round(v * 10) / 10);

export interface FigureText {
  readonly title: string;
  readonly subtitle: string;
}

/** @param body drawn in a plot's own coordinates, (0, 0) being its top left corner below the header @param height of the plot */
export function svgDocument({ title, subtitle }: FigureText, body: string, height: number, width = frame.width): string {
  const total = height + header;
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${total}" width="${width}" height="${total}" role="img">` +
    `<title>${escapeHtml(title)}</title><style>${css}</style><rect class="paper" width="${width}" height="${total}"/>` +
    `<text class="title" x="20" y="30">${escapeHtml(title)}</text><text class="sub" x="20" y="50">${escapeHtml(subtitle)}</text>` +
    `<g transform="translate(0 ${header})">${body}</g></svg>\n`
  );
}
