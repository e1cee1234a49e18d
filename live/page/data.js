// The parts of the model's data: binary files from a server, scripts with base64 from disk.

const fromDisk = location.protocol === "file:";
const STORAGE = "steering-book-live";

/** The browser's storage, for pages from a server; null where there is none. */
async function storage() {
  if (fromDisk || !window.caches) return null;
  return caches.open(STORAGE).catch(() => null);
}

// The checksum in the address keeps a browser from taking an older part.
const address = ({ name, crc32 }) =>
  `data/${name}.${fromDisk ? "js" : "bin"}?${crc32.toString(16)}`;

/**
 * Each part's bytes, one after the other, so that at most one is held here. A page from a server
 * stores every part as it comes, so that the next visit goes on where this one was broken off.
 */
export async function* loadParts(parts) {
  const store = await storage();
  for (const part of parts) {
    const path = address(part);
    const stored = await store?.match(path);
    if (stored) yield { part, stored: true, bytes: new Uint8Array(await stored.arrayBuffer()) };
    else if (fromDisk) yield { part, bytes: await fromScript(part.name, path) };
    else yield { part, bytes: await fromServer(part.name, path, store) };
  }
}

/** Removes a part that turned out to be damaged from the storage. */
export async function forget(part) {
  await (await storage())?.delete(address(part));
}

/** Removes what an earlier build of the page stored. */
export async function forgetOthers(parts) {
  const store = await storage();
  const own = new Set(parts.map((part) => new URL(address(part), location).href));
  const here = new URL("data/", location).href;
  for (const { url } of (await store?.keys()) ?? []) {
    if (url.startsWith(here) && !own.has(url)) await store.delete(url);
  }
}

async function fromServer(name, path, store) {
  let response;
  try {
    response = await fetch(path, store ? { cache: "no-store" } : {}); // not twice on this machine
  } catch (error) {
    throw missing(name, error.message);
  }
  if (!response.ok) throw missing(name, `the server answered ${response.status}`);
  const bytes = new Uint8Array(await response.arrayBuffer());
  await store?.put(path, new Response(bytes)).catch(() => {}); // no room: the page works without
  return bytes;
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
