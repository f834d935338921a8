// Unpack a zip file with the browser's own inflate.
const END = 0x06054b50; // starts the record at the end, which says where the list of files is
const TEXT = new TextDecoder();

// Return [name, bytes] of every file in a zip file of stored and deflated entries.
export function unzip(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let end = bytes.length - 22;
  while (view.getUint32(end, true) !== END) end--; // a comment may follow it
  const entries = [];
  let at = view.getUint32(end + 16, true);
  for (let left = view.getUint16(end + 10, true); left > 0; left--) {
    const [nameLength, extraLength, commentLength] = [28, 30, 32].map((n) => view.getUint16(at + n, true));
    const name = TEXT.decode(bytes.subarray(at + 46, at + 46 + nameLength));
    if (!name.endsWith("/")) entries.push(contents(view, bytes, at).then((content) => [name, content]));
    at += 46 + nameLength + extraLength + commentLength;
  }
  return Promise.all(entries);
}

async function contents(view, bytes, at) {
  const [packed, local] = [view.getUint32(at + 20, true), view.getUint32(at + 42, true)];
  const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
  const content = bytes.slice(start, start + packed);
  if (!view.getUint16(at + 10, true)) return content;
  const inflated = new Blob([content]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(inflated).arrayBuffer());
}
