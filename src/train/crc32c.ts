/** CRC-32C (Castagnoli), of checkpoints and TensorBoard's records. Reflected polynomial 0x82f63b78, start and end inverted. @source RFC 3720 */

/** tables[k][b]: b, then k bytes of 0, through the register: eight bytes are then eight look-ups that do not wait for one another. */
const tables = Array.from({ length: 8 }, () => new Uint32Array(256));
for (let byte = 0; byte < 256; byte++) {
  let register = byte;
  for (let bit = 0; bit < 8; bit++) register = register & 1 ? (register >>> 1) ^ 0x82f63b78 : register >>> 1;
  tables[0][byte] = register;
}
for (let k = 1; k < 8; k++) tables[k].set(tables[k - 1].map((register) => tables[0][register & 255] ^ (register >>> 8)));

/**
 * The checksum of some bytes, u32.
 * @param before of the bytes that come before them: crc32c(b, crc32c(a)) is that of a and b. @default 0, of none
 * @example crc32c(new TextEncoder().encode('123456789')) // 0xe3069283
 */
export function crc32c(bytes: Uint8Array, before = 0): number {
  const [t0, t1, t2, t3, t4, t5, t6, t7] = tables;
  let register = ~before;
  let i = 0;
  for (const end = bytes.length - 7; i < end; i += 8) {
    const low = register ^ (bytes[i] | (bytes[i + 1] << 8) | (bytes[i + 2] << 16) | (bytes[i + 3] << 24));
    register =
      t7[low & 255] ^ t6[(low >>> 8) & 255] ^ t5[(low >>> 16) & 255] ^ t4[low >>> 24] ^
      t3[bytes[i + 4]] ^ t2[bytes[i + 5]] ^ t1[bytes[i + 6]] ^ t0[bytes[i + 7]];
  }
  for (; i < bytes.length; i++) register = (register >>> 8) ^ t0[(register ^ bytes[i]) & 255];
  return ~register >>> 0;
}
