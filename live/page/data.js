// The parts of the model's data: binary files from a server, scripts with base64 from disk.

const fromDisk = location.protocol === "file:";

/** Each part's name and bytes, one after the other, so that at most one is held here. */
export async function* loadParts(parts) {
  for (const { name, crc32 } of parts) {
    // The checksum in the address keeps a browser from taking an older part from its cache.
    const path = `data/${name}.${fromDisk ? "js" : "bin"}?${crc32.toString(16)}`;
    yield { name, bytes: await (fromDisk ? fromScript : fromServer)(name, path) };
  }
}

async function fromServer(name, path) {
  let response;
  try {
    response = await fetch(path);
  } catch (error) {
    throw missing(name, error.message);
  }
  if (!response.ok) throw missing(name, `the server answered ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

async function fromScript(name, path) {
  const script = document.createElement("script");
  const text = await new Promise((resolve, reject) => {
    window.livePart = (given, base64) => {
      if (given === name) resolve(base64);
    };
    script.onload = () => reject(missing(name, "its script holds no data"));
    script.onerror = () => reject(missing(name, "there is no such file"));
    script.src = path;
    document.head.append(script);
  }).finally(() => script.remove());
  try {
    return decode(text);
  } catch {
    throw missing(name, "its script is damaged");
  }
}

function decode(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

function missing(name, why) {
  return new Error(`${name} of the model cannot be loaded: ${why}. Run make live again.`);
}
