/** A tar archive for tests, good or wicked: each entry is what its header says, whatever that is. */
export interface TarEntry {
  name: string;
  content?: Uint8Array;
  /** POSIX typeflag. @default '0' */
  type?: string;
  linkName?: string;
  /** What the header gives as size. @default content's length */
  size?: string;
}

export function tarFile(entries: readonly TarEntry[]): Buffer {
  const blocks = entries.flatMap(({ name, content = new Uint8Array(0), type = '0', linkName = '', size }) => {
    const header = Buffer.alloc(512);
    header.write(name, 0, 100);
    header.write('0000644\0', 100);
    header.write(size ?? `${content.length.toString(8).padStart(11, '0')}\0`, 124, 12, 'latin1');
    header.write('00000000000\0', 136);
    header.write('        ', 148);
    header.write(type, 156);
    header.write(linkName, 157);
    header.write('ustar\0' + '00', 257);
    const sum = header.reduce((total, byte) => total + byte, 0);
    header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
    return [header, Buffer.from(content), Buffer.alloc((512 - (content.length % 512)) % 512)];
  });
  return Buffer.concat([...blocks, Buffer.alloc(1024)]);
}
