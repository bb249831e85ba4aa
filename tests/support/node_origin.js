// The application of `real_servers` for node's own http server.
"use strict";
const http = require("node:http");
const { createHash } = require("node:crypto");
const { gzipSync } = require("node:zlib");

const MIB = Buffer.concat(Array(4096).fill(Buffer.from([...Array(256).keys()])));
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function answer(request, response) {
  const url = new URL(request.url, "http://origin");
  if (url.pathname === "/large") {
    for (let left = Number(url.searchParams.get("mib")); left; left--) {
      if (!response.write(MIB)) await new Promise((done) => response.once("drain", done));
    }
    response.end();
  } else if (url.pathname === "/events") {
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    for (let number = 0; number < 5; number++) {
      response.write(`data: ${number}\n\n`);
      await pause(200);
    }
    response.end("data: end\n\n");
  } else if (url.pathname === "/gzip") {
    const packed = gzipSync(MIB);
    response.writeHead(200, { "Content-Encoding": "gzip", "Content-Length": packed.length });
    response.end(packed);
  } else if (url.pathname === "/etag") {
    const known = request.headers["if-none-match"] === '"v1"';
    response.writeHead(known ? 304 : 200, { ETag: '"v1"' });
    response.end(known ? undefined : "version one");
  } else {
    const digest = createHash("sha256");
    let size = 0;
    for await (const piece of request) {
      digest.update(piece);
      size += piece.length;
    }
    const told = JSON.stringify({
      method: request.method,
      target: request.url,
      size,
      sha256: digest.digest("hex"),
      length: request.headers["content-length"] ?? null,
      encoding: request.headers["transfer-encoding"] ?? null,
    });
    response.writeHead(200, { "Content-Type": "application/json", "Content-Length": told.length });
    response.end(told);
  }
}

http.createServer(answer).listen(Number(process.argv[2]), "127.0.0.1");
