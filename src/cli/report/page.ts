/** The frame of a page: one document, with its style and the script that draws its plots, that loads nothing. */
import licence from 'uplot/LICENSE?bundled';
import plotCss from 'uplot/dist/uPlot.min.css?bundled';
import plotScript from './plots.client.ts?bundled';
import { escapeHtml } from './html.ts';
import { css } from './style.ts';

export interface Page {
  readonly title: string;
  readonly subtitle: string;
  /** HTML */
  readonly content: string;
}

/** A script's text must not end its element. */
const inScript = (text: string): string => text.replaceAll(/<\/(script)/gi, '<\\/$1');

export function renderPage({ title, subtitle, content }: Page): string {
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>${escapeHtml(title)}</title><style>${plotCss}${css}</style></head>
<body><main><h1>${escapeHtml(title)}</h1><p class="sub">${escapeHtml(subtitle)}</p>
${content}
</main>
<noscript><p>The plots need JavaScript; the tables do not.</p></noscript>
<script>/* Plots: uPlot.
${licence.trim()}
*/
${inScript(plotScript)}</script></body></html>
`;
}

export const panel = (title: string, note: string, content: string): string =>
  `<section class="panel"><h2>${escapeHtml(title)}</h2>${note === '' ? '' : `<p>${escapeHtml(note)}</p>`}${content}</section>`;
