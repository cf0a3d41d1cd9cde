/**
 * What is said about a bad argument: the classes, codes and words of Node itself.
 */

/** An argument is not what it must be; worded and coded as Node's own. */
export function invalidArgType(name: string, expected: string, value: unknown): TypeError {
  const what = name.includes('.') ? 'property' : 'argument'
  return withCode(
    new TypeError(`The "${name}" ${what} must be ${expected}. Received ${received(value)}`),
    'ERR_INVALID_ARG_TYPE',
  )
}

/** An argument is outside its range; worded and coded as Node's own. */
export function outOfRange(name: string, expected: string, value: unknown): RangeError {
  return withCode(
    new RangeError(
      `The value of "${name}" is out of range. It must be ${expected}. Received ${received(value)}`,
    ),
    'ERR_OUT_OF_RANGE',
  )
}

/** What was handed over is no longer what it was when the call began; coded as Node's own. */
export function invalidState(message: string): Error {
  return withCode(new Error(`Invalid state: ${message}`), 'ERR_INVALID_STATE')
}

function withCode<E extends Error>(error: E, code: string): E {
  return Object.defineProperty(error, 'code', {
    value: code,
    enumerable: true,
    writable: true,
    configurable: true,
  })
}

function received(value: unknown): string {
  switch (typeof value) {
    case 'undefined':
      return 'undefined'
    case 'function':
      return `function ${value.name}`
    case 'string':
      return value.length > 28 ? `'${value.slice(0, 25)}...'` : `'${value}'`
    case 'bigint':
      return `${value}n`
    case 'object':
      return value === null ? 'null' : `an instance of ${value.constructor?.name ?? 'Object'}`
    default:
      return String(value)
  }
}
