// Python's memory, as it was once its packages were imported, kept in this browser's cache.
// Where nothing can be kept, as in private windows, every start is a cold one.
import { sha256 } from "./assets.mjs";
import { piped } from "./unzip.mjs";

const FOLDER = new URL("./", import.meta.url);
const SHELF = `attncore-live ${FOLDER.pathname}`; // other books of this host have theirs

// Return { memory, table } as kept under this key, or undefined.
export async function recall(key) {
  try {
    const found = await (await caches.open(SHELF)).match(new URL(key, FOLDER));
    const packed = new Uint8Array(await found.arrayBuffer());
    if ((await sha256(packed)) !== found.headers.get("x-sha256")) return await forget();
    const memory = await piped(packed, new DecompressionStream("gzip"));
    return { memory, table: Number(found.headers.get("x-table")) };
  } catch {
    return undefined;
  }
}

// Keep this one, and no other.
export async function store(key, { memory, table }) {
  try {
    const packed = await piped(memory, new CompressionStream("gzip"));
    const headers = { "x-sha256": await sha256(packed), "x-table": table };
    await forget();
    await (await caches.open(SHELF)).put(new URL(key, FOLDER), new Response(packed, { headers }));
  } catch {
    // No room, or not allowed.
  }
}

export async function forget() {
  try {
    await caches.delete(SHELF);
  } catch {
    // There was none.
  }
}
