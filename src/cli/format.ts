/** Numbers as people read them; shared by the progress line and the report. */

/** '0.005', '1.3e-7': significant digits, no trailing zeros, exponent only below 1e-4 or from 1e6. NaN and ±Infinity as text. */
export function formatNumber(x: number, digits = 4): string {
  if (!Number.isFinite(x)) return x === Infinity ? '∞' : x === -Infinity ? '−∞' : 'NaN';
  if (x === 0) return '0';
  const size = Math.abs(x);
  if (size < 1e-4 || size >= 1e6) {
    const [mantissa, exponent] = x.toExponential(Math.max(0, digits - 1)).split('e');
    return `${Number(mantissa)}e${Number(exponent)}`;
  }
  return String(Number(x.toPrecision(Math.max(digits, Math.floor(Math.log10(size)) + 1))));
}

/** A loss with a steady number of digits, so that a redrawn line does not jump: 4 decimals below 10, 4 significant digits above. */
export function formatLoss(loss: number): string {
  return Number.isFinite(loss) && Math.abs(loss) < 10 ? loss.toFixed(4) : formatNumber(loss);
}

/** Seconds as '0:07', '12:30', '3:05:00'; '-:--' where unknown. */
export function formatDuration(seconds: number): string {
  if (!Number.isFinite(seconds) || seconds < 0) return '-:--';
  const whole = Math.round(seconds);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const tail = String(s).padStart(2, '0');
  return h > 0 ? `${h}:${String(m).padStart(2, '0')}:${tail}` : `${m}:${tail}`;
}

/** Bytes as '512 B', '42.6 MiB'. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB'];
  if (!Number.isFinite(bytes)) return formatNumber(bytes);
  const power = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log2(Math.max(1, Math.abs(bytes))) / 10)));
  return `${formatNumber(bytes / 1024 ** power, 3)} ${units[power]}`;
}
