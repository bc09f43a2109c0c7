// ZIP files with uncompressed entries: pictures are compressed already.

const MOST_BYTES = 0xffffffff; // limit without ZIP64
const UTF8_NAMES = 1 << 11;
const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

/**
 * Build a ZIP file (PKWARE APPNOTE 6.3.3).
 * @param {{name: string, blob: Blob}[]} files equal names get numbers
 * @returns {Promise<Blob>}
 */
export async function buildZip(files) {
  const [parts, entries, names] = [[], [], new Set()];
  let offset = 0;
  for (const { name, blob } of files) {
    const entry = describe(makeUnique(name, names), blob.size, await computeCrc(blob), offset);
    const header = buildHeader(entry);
    parts.push(header, blob);
    entries.push(buildDirectoryEntry(entry));
    offset += header.length + blob.size;
  }
  const size = entries.reduce((sum, entry) => sum + entry.length, 0);
  if (offset + size > MOST_BYTES || entries.length > 0xffff) {
    throw new RangeError("The pictures do not fit into one ZIP file: download them in parts.");
  }
  return new Blob([...parts, ...entries, buildEnd(entries.length, size, offset)], { type: "application/zip" });
}

function makeUnique(name, names) {
  const [, stem, suffix] = name.match(/^(.*?)(\.[^.]*)?$/s);
  let unique = name;
  for (let number = 2; names.has(unique); number += 1) unique = `${stem}-${number}${suffix ?? ""}`;
  names.add(unique);
  return unique;
}

async function computeCrc(blob) {
  let crc = 0xffffffff;
  const reader = blob.stream().getReader();
  for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
    for (const byte of chunk.value) crc = TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  }
  return ~crc >>> 0;
}

function describe(name, size, crc, offset) {
  const now = new Date();
  const time = (now.getHours() << 11) | (now.getMinutes() << 5) | (now.getSeconds() >> 1);
  const date = ((now.getFullYear() - 1980) << 9) | ((now.getMonth() + 1) << 5) | now.getDate();
  return { name: new TextEncoder().encode(name), size, crc, offset, time, date };
}

// Fields are [bytes, value], little-endian.
function pack(fields, name = new Uint8Array()) {
  const bytes = fields.flatMap(([size, value]) =>
    Array.from({ length: size }, (_, index) => (value >>> (8 * index)) & 255));
  return Uint8Array.from([...bytes, ...name]);
}

function listCommonFields({ time, date, crc, size, name }) {
  return [[2, 20], [2, UTF8_NAMES], [2, 0], [2, time], [2, date],
    [4, crc], [4, size], [4, size], [2, name.length], [2, 0]];
}

function buildHeader(entry) {
  return pack([[4, 0x04034b50], ...listCommonFields(entry)], entry.name);
}

function buildDirectoryEntry(entry) {
  return pack([[4, 0x02014b50], [2, 20], ...listCommonFields(entry),
    [2, 0], [2, 0], [2, 0], [4, 0], [4, entry.offset]], entry.name);
}

function buildEnd(count, size, offset) {
  return pack([[4, 0x06054b50], [2, 0], [2, 0], [2, count], [2, count], [4, size], [4, offset], [2, 0]]);
}
