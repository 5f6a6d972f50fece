// node upload.mjs MODULES ENDPOINT FILE VIRUS EXPIRED DATABASE: uploads the files by tus-js-client in several ways, and
// prints as JSON their URLs, or how they are refused. EXPIRED is the URL of an upload. DATABASE is moved away for a while.
import { createReadStream, mkdirSync, renameSync, rmdirSync } from "node:fs";
import { createRequire } from "node:module";
import { PassThrough } from "node:stream";

const [modules, endpoint, file, virus, late, database] = process.argv.slice(2);
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

// What is answered, such as "HEAD 200".
const answers = (seen) => ({ onAfterResponse: (request, response) => void seen.push(`${request.getMethod()} ${response.getStatus()}`) });

// The database is away from the first piece on, until the server was asked three times where to go on.
async function outage(seen) {
  let began = false;
  const onChunkComplete = () => {
    if (began) return;
    began = true;
    renameSync(database, `${database}.away`);
    mkdirSync(database);
  };
  const onAfterResponse = (...exchange) => {
    answers(seen).onAfterResponse(...exchange);
    if (seen.filter((answer) => answer.startsWith("HEAD")).length !== 3) return;
    rmdirSync(database);
    renameSync(`${database}.away`, database);
  };
  return upload({ chunkSize: 9_000_000, onChunkComplete, onAfterResponse, retryDelays: Array(20).fill(100) });
}

const urls = {
  whole: await upload({}),
  pieces: await upload({ chunkSize: 5_000_000, overridePatchMethod: true }),
  created: await upload({ uploadDataDuringCreation: true }),
  deferred: await upload({ uploadLengthDeferred: true, chunkSize: 5_000_000 }, createReadStream(file).pipe(new PassThrough())),
  parallel: await upload({ parallelUploads: 3 }),
  resumed: await upload({ uploadUrl: await part({}, 9_000_000) }),
};
const gone = await part({ chunkSize: 1_000_000 }, 2_500_000);
await tus.Upload.terminate(gone);
urls.again = await upload({ uploadUrl: gone });
const expired = [];
urls.expired = await upload({ uploadUrl: late, ...answers(expired) });
const away = [];
urls.away = await outage(away);
const refused = await upload({ metadata: { filename: "a.exe" } }).catch(status);
const rejected = [];
await upload(answers(rejected), createReadStream(virus)).catch(status);
const rejectedParallel = await upload({ parallelUploads: 2 }, createReadStream(virus)).catch(status);
const mismatch = await upload({ headers: { "Upload-Checksum": "sha1 2jmj7l5rSw0yVb/vlWAYkK/YBwk=" } }).catch(status);
const told = JSON.stringify({ urls, gone, refused, rejected, rejectedParallel, mismatch, expired, away });
process.stdout.write(told, () => process.exit()); // uploads that were stopped would keep it running
