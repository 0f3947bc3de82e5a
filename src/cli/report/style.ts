/** Colours and CSS of the report, light and dark. */

const palette = {
  light: ['#2563c9', '#d9620f', '#15875f', '#8a4fd3', '#c2334d', '#0f8a9d', '#8a6d00', '#5b6472'],
  dark: ['#6ea8ff', '#ff9d5c', '#4fd1a1', '#c29bff', '#ff7d92', '#53cfe0', '#e2c044', '#aab4c3'],
};
const sans = 'system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",sans-serif';

const lines = ['line', 'dashed', 'dotted'] as const;

/** CSS colour of run i, one of the palette, which follows light and dark. */
export const runColor = (i: number): string => `var(--run${i % palette.light.length})`;

/** With runColor, tells 24 runs apart. */
export const runLine = (i: number): (typeof lines)[number] => lines[Math.floor(i / palette.light.length) % lines.length];

const variables = (colors: string[]): string => colors.map((c, i) => `--run${i}:${c}`).join(';');

export const css = `
:root{color-scheme:light dark;--bg:#f6f7f9;--panel:#fff;--ink:#1b2330;--soft:#5d6878;--line:#dfe3e9;--grid:#edf0f3;--bad:#b42318;
${variables(palette.light)}}
@media (prefers-color-scheme:dark){
:root{--bg:#11141a;--panel:#191e26;--ink:#e6e9ef;--soft:#9aa5b5;--line:#2c3440;--grid:#242b35;--bad:#ff8a7a;${variables(palette.dark)}}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 ${sans}}
main{max-width:1000px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:25px;line-height:1.25;margin:0 0 4px;letter-spacing:-.01em}
h2{font-size:16px;margin:0 0 2px}
p{margin:0;color:var(--soft)}
.sub{margin-bottom:20px}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(210px,1fr));gap:14px;margin:0 0 16px}
.card,.panel{background:var(--panel);border:1px solid var(--line);border-radius:10px}
.card{padding:14px 16px;border-top:4px solid var(--c)}
.card b{display:block;font-size:30px;line-height:1.2;font-weight:650;font-variant-numeric:tabular-nums}
.card .run{font-weight:600;overflow-wrap:anywhere}
.card small{display:block;color:var(--soft);font-size:13px;font-variant-numeric:tabular-nums}
.card .bad{color:var(--bad);font-weight:600}
.panel{margin:0 0 16px;padding:16px 18px}
.panel p{font-size:13px;margin-bottom:6px}
.legend{display:flex;flex-wrap:wrap;gap:4px 20px;margin:0 2px 12px;padding:0;list-style:none;font-size:14px}
.legend i,.key{display:inline-block;width:20px;height:4px;border-radius:2px;background:var(--c);margin-right:8px;vertical-align:middle}
svg{display:block;width:100%;height:auto;font:12.5px ${sans};font-variant-numeric:tabular-nums}
svg text{fill:var(--soft)}
.grid{stroke:var(--grid);fill:none}
.axis,.tick{stroke:var(--line);fill:none}
.plot{margin:8px 0 2px}
.u-legend{font-size:13px;text-align:left;color:var(--ink)}
.u-legend th{font-weight:400}
.u-legend tr,.u-legend th,.u-legend td{border:0;padding:1px 6px 1px 2px}
.u-legend .u-value{color:var(--soft);font-variant-numeric:tabular-nums;min-width:4em;display:inline-block;text-align:left}
.u-select{background:color-mix(in srgb,var(--ink) 10%,transparent)}
.cell{fill:var(--c)}
.cell.dead{fill:none}
.dead-mark{stroke:var(--bad);stroke-width:1.4;fill:none}
.best{fill:none;stroke:var(--ink);stroke-width:1.3}
.wide{overflow-x:auto}
.wide svg{min-width:600px}
.scroll{overflow:auto;max-height:440px;margin-top:8px}
table{border-collapse:collapse;width:100%;font-size:13.5px;font-variant-numeric:tabular-nums}
th,td{padding:5px 7px;text-align:right;border-bottom:1px solid var(--grid);white-space:nowrap}
th{color:var(--soft);font-weight:600}
thead th{position:sticky;top:0;background:var(--panel);border-bottom:1px solid var(--line)}
th:first-child,td:first-child,th.name{text-align:left}
td.left{text-align:left;white-space:normal;overflow-wrap:anywhere;min-width:16em}
.name{text-align:left}
td.w{background:color-mix(in srgb,var(--c) calc(var(--w)*1%),transparent)}
td.min{font-weight:700;text-decoration:underline;text-underline-offset:3px}
.bad{color:var(--bad)}
details{margin-top:8px}
summary{cursor:pointer;color:var(--soft);font-size:13.5px}
.question{font-size:14.5px}
.note{color:var(--soft);font-size:12.5px;text-align:left}
@media print{.scroll{max-height:none}body{background:none}.panel{break-inside:avoid}}
`;
