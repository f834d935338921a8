// Python's memory, as it was once its packages were imported, kept among this browser's files.
// Where nothing can be kept, as in some private windows, every start is a cold one.
import { sha256 } from "./assets.mjs";

const FOLDER = new URL("./", import.meta.url).pathname;
const SHELF = `attncore-live ${encodeURIComponent(FOLDER)}`; // other books of this host have theirs
const LABEL = 80; // bytes before the memory: how many functions there were, and its hash

// Return { memory, table } as kept under this key, or undefined.
export async function recall(key) {
  try {
    const file = await open(key, { create: false });
    const [label, memory] = [LABEL, file.getSize() - LABEL].map((size) => new Uint8Array(size));
    file.read(label, { at: 0 });
    file.read(memory, { at: LABEL });
    file.close();
    const [table, hash] = new TextDecoder().decode(label).trim().split(" ");
    return (await sha256(memory)) === hash ? { memory, table: Number(table) } : await forget();
  } catch {
    return undefined;
  }
}

// Keep this one, and no other.
export async function store(key, { memory, table }) {
  try {
    const label = `${table} ${await sha256(memory)}`.padEnd(LABEL);
    await forget();
    const file = await open(key, { create: true });
    file.write(memory, { at: LABEL });
    file.write(new TextEncoder().encode(label), { at: 0 });
    file.close();
  } catch {
    // No room, or not allowed.
  }
}

export async function forget() {
  try {
    await (await navigator.storage.getDirectory()).removeEntry(SHELF, { recursive: true });
  } catch {
    // There was none.
  }
}

async function open(key, options) {
  const shelf = await (await navigator.storage.getDirectory()).getDirectoryHandle(SHELF, options);
  return (await shelf.getFileHandle(key, options)).createSyncAccessHandle();
}
