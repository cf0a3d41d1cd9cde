/**
 * A blob as streams. They read and write through its handle, one call at a time, and leave the handle open.
 */
import { addAbortSignal, Readable, Writable } from 'node:stream'
import type { StreamRequest } from './blob-options.js'
import { RingboltError } from './errors.js'

/** What a stream needs of a handle. */
interface Source {
  readonly size: number
  readonly closed: boolean
  read(offset: number, length: number): Promise<Uint8Array>
}

/** What a stream needs of a handle. */
interface Sink {
  write(offset: number, chunks: readonly Uint8Array[]): Promise<void>
}

type Callback = (error?: Error | null) => void

/** Waits for the call that is under way: a stream that is destroyed is quiet when it says so. */
class UnderWay {
  #call: Promise<unknown> | undefined

  begin<T>(call: Promise<T>, done: (value: T) => void, failed: (error: Error) => void): void {
    this.#call = call.then(done, failed).finally(() => {
      this.#call = undefined
    })
  }

  ended(then: () => void): void {
    if (this.#call === undefined) then()
    else this.#call.then(then)
  }
}

class BlobReadStream extends Readable {
  readonly #source: Source
  readonly #end: number
  readonly #underWay = new UnderWay()
  /** Where the next bytes are. */
  #offset: number

  constructor(source: Source, { start, end, highWaterMark }: StreamRequest) {
    super({ highWaterMark })
    this.#source = source
    this.#offset = start
    this.#end = end
  }

  override _read(size: number): void {
    const offset = this.#offset
    // Asked each time: the blob may grow and shrink while it is being read.
    const length = Math.min(size, this.#end - offset, this.#source.size - offset)
    // Of a handle that is closed the size says nothing, and a call says that it is.
    if (length <= 0 && !this.#source.closed) {
      this.push(null)
      return
    }
    this.#underWay.begin(
      this.#source.read(offset, Math.max(length, 0)),
      bytes => {
        // Destroyed meanwhile: nobody is to see more of it.
        if (this.destroyed) return
        this.#offset += length
        this.push(bytes)
      },
      error => {
        // It was cut in between: what is left of it is shorter.
        const isShorter = error instanceof RingboltError && error.code === 'ERR_BLOB_INSUFFICIENT_LENGTH'
        if (isShorter) this._read(size)
        else this.destroy(error)
      },
    )
  }

  override _destroy(error: Error | null, callback: Callback): void {
    this.#underWay.ended(() => callback(error))
  }
}

class BlobWriteStream extends Writable {
  readonly #sink: Sink
  readonly #underWay = new UnderWay()
  /** Where the next bytes go. */
  #offset: number

  constructor(sink: Sink, { start, highWaterMark }: StreamRequest) {
    super({ highWaterMark })
    this.#sink = sink
    this.#offset = start
  }

  override _write(chunk: Uint8Array, _encoding: BufferEncoding, callback: Callback): void {
    this.#write([chunk], callback)
  }

  override _writev(items: { chunk: Uint8Array }[], callback: Callback): void {
    this.#write(
      items.map(({ chunk }) => chunk),
      callback,
    )
  }

  #write(chunks: readonly Uint8Array[], callback: Callback): void {
    const offset = this.#offset
    for (const { length } of chunks) this.#offset += length
    this.#underWay.begin(this.#sink.write(offset, chunks), () => callback(), callback)
  }

  override _destroy(error: Error | null, callback: Callback): void {
    this.#underWay.ended(() => callback(error))
  }
}

/** The bytes from `start` to before `end`, or to the blob's end. */
export function readStreamOf(source: Source, request: StreamRequest): Readable {
  return abortable(new BlobReadStream(source, request), request)
}

/** Writes from `start` on. */
export function writeStreamOf(sink: Sink, request: StreamRequest): Writable {
  return abortable(new BlobWriteStream(sink, request), request)
}

/** The signal may be aborted already, which destroys the stream at once: so it is told when the stream is whole. */
function abortable<S extends Readable | Writable>(stream: S, { signal }: StreamRequest): S {
  if (signal !== undefined) addAbortSignal(signal, stream)
  return stream
}
