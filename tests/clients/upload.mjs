// node upload.mjs MODULES ENDPOINT FILE VIRUS: uploads the files by tus-js-client in several ways, and prints their URLs,
// or how they are refused, as JSON.
import { createReadStream } from "node:fs";
import { createRequire } from "node:module";
import { PassThrough } from "node:stream";

const [modules, endpoint, file, virus] = process.argv.slice(2);
const tus = createRequire(`${modules}/`)("tus-js-client");
const metadata = { filename: "ä b.bin", filetype: "text/x-test" };

function upload(options, source = createReadStream(file)) {
  return new Promise((resolve, reject) => {
    const known = { endpoint, metadata, retryDelays: [0, 100, 500], onError: reject, ...options };
    const one = new tus.Upload(source, { onSuccess: () => resolve(one.url), ...known });
    one.start();
  });
}

// Ends after some bytes, and gives the URL to go on with.
function part(options, enough) {
  return new Promise((resolve, reject) => {
    const onProgress = (sent) => sent > enough && one.abort().then(() => resolve(one.url));
    const onSuccess = () => resolve(one.url); // it was too late
    const known = { endpoint, metadata, onError: reject, onProgress, onSuccess, ...options };
    const one = new tus.Upload(createReadStream(file), known);
    one.start();
  });
}

const status = (error) => error.originalResponse?.getStatus();
const urls = {
  whole: await upload({}),
  pieces: await upload({ chunkSize: 5_000_000 }),
  overridden: await upload({ chunkSize: 5_000_000, overridePatchMethod: true }),
  created: await upload({ uploadDataDuringCreation: true }),
  deferred: await upload({ uploadLengthDeferred: true, chunkSize: 5_000_000 }, createReadStream(file).pipe(new PassThrough())),
  parallel: await upload({ parallelUploads: 3 }),
  resumed: await upload({ uploadUrl: await part({}, 9_000_000) }),
};
const gone = await part({ chunkSize: 1_000_000 }, 2_500_000);
await tus.Upload.terminate(gone);
const refused = await upload({ metadata: { filename: "a.exe" } }).catch(status);
const rejected = [];
const onAfterResponse = (request, response) => void rejected.push([request.getMethod(), response.getStatus()]);
await upload({ onAfterResponse }, createReadStream(virus)).catch(status);
const rejectedParallel = await upload({ parallelUploads: 2 }, createReadStream(virus)).catch(status);
// It begins anew what is not there any more.
const again = await upload({ uploadUrl: gone });
const told = JSON.stringify({ ...urls, again, gone, refused, rejected, rejectedParallel });
process.stdout.write(told, () => process.exit()); // uploads that were stopped would keep it running
