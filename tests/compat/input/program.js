// Work for Node: buffers, JSON, regular expressions, compression, hashes, streams, workers, children.
'use strict';
const { createHash, pbkdf2Sync } = require('crypto');
const { execFileSync } = require('child_process');
const { pipeline } = require('stream/promises');
const { Readable, Transform } = require('stream');
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const zlib = require('zlib');

let seed = 20231;
function number(below) {
	seed = (seed * 16807) % 2147483647;
	return seed % below;
}

const words = 'river stone amber north ship green lamp order quiet maple salt wheel'.split(' ');
const digest = (data) => createHash('sha256').update(data).digest('hex');

function orders(count) {
	return Array.from({ length: count }, (_, id) => ({
		id,
		name: `${words[number(12)]} ${words[number(12)]}`,
		price: number(100000) / 100,
		lines: Array.from({ length: number(6) }, () => ({ sku: number(9999), note: '\u00e9'.repeat(number(40)) })),
	}));
}

function inWorker() {
	const map = new Map();
	for (let i = 0; i < 20000; i++) {
		map.set(`${workerData}-${i % 700}`, Buffer.alloc((i * 13) % 9000, i & 255));
	}
	const hash = createHash('sha1');
	for (const value of map.values()) hash.update(value);
	parentPort.postMessage(hash.digest('hex'));
}

function worker(n) {
	return new Promise((resolve, reject) => {
		const it = new Worker(__filename, { workerData: n });
		it.once('message', resolve);
		it.once('error', reject);
	});
}

async function main() {
	const rows = orders(4000);
	const text = JSON.stringify(rows, null, 1);
	console.log(text.length, digest(JSON.stringify(JSON.parse(text))));
	console.log(digest(text.replace(/([a-z]+) ([a-z]+)/g, (_, a, b) => b.toUpperCase() + a)));

	const packed = zlib.deflateSync(text, { level: 6 });
	console.log(digest(packed), zlib.inflateSync(packed).toString() === text);
	const brotli = zlib.brotliCompressSync(text, { params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 5 } });
	console.log(digest(brotli), zlib.brotliDecompressSync(brotli).length);
	console.log(pbkdf2Sync('secret', 'salt', 5000, 32, 'sha512').toString('hex'));

	const hash = createHash('md5');
	const upper = new Transform({ transform(chunk, _, done) { done(null, chunk.toString().toUpperCase()); } });
	await pipeline(Readable.from(text.match(/[^]{1,5000}/g)), upper, zlib.createGzip({ level: 1 }), zlib.createGunzip(), hash);
	console.log(hash.digest('hex'));

	console.log((await Promise.all([1, 2, 3, 4].map(worker))).join(' '));
	const script = 'process.stdin.on("data", (d) => process.stdout.write(String(d.length) + "\\n"))';
	console.log(String(execFileSync(process.execPath, ['-e', script], { input: 'x'.repeat(1000) })));
	console.log(String(execFileSync('sh', ['-c', 'cat; echo done'], { input: 'from node\n' })));
}

if (isMainThread) main();
else inWorker();
