/** A file as text: a program bundled for browsers, a style sheet, or as it is. scripts/bundled.mjs makes it. */
declare module '*?bundled' {
  const text: string;
  export default text;
}
