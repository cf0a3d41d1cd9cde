/**
 * Errors of blobs that are found on this side of the crossing.
 */
import { BlobError, type ErrorDetails } from './errors.js'

/** Which blob an error is about. */
export interface BlobName {
  readonly partition: string
  /** Its bytes. */
  readonly name: Uint8Array
}

/** How messages name a blob: as its file is named, whatever its bytes are. */
export function told({ partition, name }: BlobName): string {
  return `blob ${partition}/${Buffer.from(name).toString('hex')}`
}

function about({ partition, name }: BlobName): ErrorDetails {
  return { partition, blobName: Buffer.from(name) }
}

/** The store was closed before this call. */
export function storeClosed(directory: string): BlobError {
  const message = `the store in ${directory} is closed`
  return new BlobError('ERR_BLOB_STORE_CLOSED', message, { path: directory })
}

/** The handle was closed before this call. */
export function blobClosed(blob: BlobName): BlobError {
  const message = `the handle of the ${told(blob)} is closed: open the blob again`
  return new BlobError('ERR_BLOB_CLOSED', message, about(blob))
}

/** A partition cannot have this name. */
export function partitionNameInvalid(partition: string): BlobError {
  return new BlobError(
    'ERR_BLOB_PARTITION_NAME_INVALID',
    `${JSON.stringify(partition)} is no name of a partition: use 1 to 255 of the characters A-Z, a-z, 0-9, _ and -`,
    { partition },
  )
}

/** A blob cannot have this name. */
export function nameInvalid(why: string, details: ErrorDetails): BlobError {
  return new BlobError(
    'ERR_BLOB_NAME_INVALID',
    `a blob's name has 1 to 127 bytes, and this one ${why}`,
    details,
  )
}

/** A read reaches past the end. */
export function insufficientLength(blob: BlobName, offset: number, length: number, size: number): BlobError {
  const message = `reading ${length} bytes at offset ${offset} of the ${told(blob)}: it has ${size} bytes, so read less`
  return new BlobError('ERR_BLOB_INSUFFICIENT_LENGTH', message, { ...about(blob), offset, length, size })
}

/** An offset, a length or their sum is beyond what a number holds exactly. */
export function offsetOverflow(name: string, value: number | bigint): BlobError {
  const message = `"${name}" ends at ${value}, beyond 2^53 - 1, the largest offset there is`
  return new BlobError('ERR_BLOB_OFFSET_OVERFLOW', message, { offset: Number(value) })
}
