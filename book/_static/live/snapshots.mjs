// Python's memory, as it was once its packages were imported, and what else a start needs, kept
// among this browser's files: they are read ten times sooner than its cache. Where nothing can be
// kept, as in some private windows, every start is a cold one.
const FOLDER = new URL("./", import.meta.url).pathname;
const SHELF = `attncore-live ${encodeURIComponent(FOLDER)}`; // other books of this host have theirs
const LABEL = 60; // bytes: how many functions there were, the checksum, the length of the list

// Return { memory, table, parts } as kept under this key, or undefined.
export async function recall(key) {
  let file;
  try {
    file = await open(key, { create: false });
  } catch {
    return undefined; // there is none, or another page holds it
  }
  try {
    const [table, sum, length] = text(read(file, 0, LABEL)).trim().split(" ").map(Number);
    let at = LABEL + length;
    const [[, memory], ...parts] = JSON.parse(text(read(file, LABEL, length))).map(([name, size]) => {
      at += size;
      return [name, read(file, at - size, size)];
    });
    if (checksum([["", memory], ...parts]) === sum) return { memory, table, parts };
  } catch {
    // Never written to its end.
  } finally {
    file.close();
  }
  return forget();
}

// Keep this one, and no other.
export async function store(key, { memory, table, parts }) {
  try {
    const all = [["", memory], ...parts];
    const list = new TextEncoder().encode(JSON.stringify(all.map(([name, { length }]) => [name, length])));
    await forget();
    const file = await open(key, { create: true });
    let at = LABEL;
    for (const bytes of [list, ...all.map(([, bytes]) => bytes)]) at += file.write(bytes, { at });
    const label = `${table} ${checksum(all)} ${list.length}`.padEnd(LABEL);
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

function read(file, at, size) {
  const bytes = new Uint8Array(size);
  file.read(bytes, { at });
  return bytes;
}

const text = (bytes) => new TextDecoder().decode(bytes);

// Tells damage, ten times sooner than SHA-256, which was checked when these came from the network.
// Who could write here on purpose could write a matching hash, too.
function checksum(parts) {
  let sum = 0;
  for (const [, bytes] of parts) {
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
    for (let i = 0; i < words.length; i++) sum = (Math.imul(sum, 31) + words[i]) | 0;
    for (const byte of bytes.subarray(4 * words.length)) sum = (Math.imul(sum, 31) + byte) | 0;
  }
  return sum;
}
