// The model's data in memory: parts put together and checked, files and weights taken out.

const table = new Uint32Array(256);
for (let byte = 0; byte < 256; byte++) {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = (value >>> 1) ^ (value & 1 ? 0xedb88320 : 0);
  table[byte] = value;
}

/** CRC-32, as in zlib. The browser's own checksums are missing on pages without TLS. */
export function crc32(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = table[(value ^ byte) & 255] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

const half = new Float32Array(65536); // the value of every 16-bit float
for (let bits = 0; bits < 65536; bits++) {
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  let value = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24;
  if (exponent === 31) value = fraction ? NaN : Infinity;
  half[bits] = bits >> 15 ? -value : value;
}

// Blocks of 32 weights. Q8_0: scale, 32 signed bytes. Q4_1: scale, minimum, 16 bytes whose low
// halves are the first 16 weights. The arithmetic is exact but for one rounding, as in Python.
const readers = {
  F32(bytes) {
    return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  },
  Q8_0(bytes) {
    const signed = new Int8Array(bytes.buffer, bytes.byteOffset, bytes.length);
    const out = new Float32Array((bytes.length / 34) * 32);
    for (let block = 0, to = 0; block < bytes.length; block += 34) {
      const scale = half[bytes[block] | (bytes[block + 1] << 8)];
      for (let i = 0; i < 32; i++) out[to++] = scale * signed[block + 2 + i];
    }
    return out;
  },
  Q4_1(bytes) {
    const out = new Float32Array((bytes.length / 20) * 32);
    for (let block = 0, to = 0; block < bytes.length; block += 20, to += 32) {
      const scale = half[bytes[block] | (bytes[block + 1] << 8)];
      const minimum = half[bytes[block + 2] | (bytes[block + 3] << 8)];
      for (let i = 0; i < 16; i++) {
        const pair = bytes[block + 4 + i];
        out[to + i] = scale * (pair & 15) + minimum;
        out[to + 16 + i] = scale * (pair >> 4) + minimum;
      }
    }
    return out;
  },
};

/** Parts are added in order; then files and weights can be read. */
export class Store {
  constructor({ parts, files, tensors }) {
    Object.assign(this, { parts, files, tensors });
    this.bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.bytes, 0));
    this.filled = 0;
    this.added = 0;
  }

  add(bytes) {
    const part = this.parts[this.added++];
    if (bytes.length !== part.bytes || crc32(bytes) !== part.crc32) {
      throw new Error(`${part.name} of the model is damaged or altered. Run make live again.`);
    }
    this.bytes.set(bytes, this.filled);
    this.filled += bytes.length;
  }

  /** A file, unpacked. */
  async file(name) {
    const { offset, bytes } = this.files[name];
    const packed = new Blob([this.bytes.subarray(offset, offset + bytes)]);
    const stream = packed.stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  async json(name) {
    return JSON.parse(new TextDecoder().decode(await this.file(name)));
  }

  /** Rows of a tensor as 32-bit floats; all if not given. */
  rows(name, from = 0, to = Infinity) {
    const { type, shape, offset, bytes } = this.tensors[name];
    const rows = shape.length > 1 ? shape[0] : 1;
    const row = bytes / rows;
    const part = this.bytes.subarray(offset + from * row, offset + Math.min(to, rows) * row);
    return readers[type](part);
  }
}
