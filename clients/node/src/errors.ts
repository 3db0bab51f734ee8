/** The one error that this package throws: the service's own error as an `Error`. */
import { ErrorCode, type ServiceError } from './contracts.js';

export class TTSError extends Error implements ServiceError {
  override readonly name = 'TTSError';
  readonly code: ErrorCode;
  /** Whether asking again may succeed. */
  readonly retryable: boolean;
  readonly details?: Record<string, unknown>;

  constructor(error: ServiceError, options?: { cause?: unknown }) {
    super(error.message, options);
    this.code = error.code;
    this.retryable = error.retryable;
    if (error.details) this.details = error.details;
  }

  /** More than the code says, such as `gateway_lost` or `queue_full`. */
  get reason(): string | undefined {
    const reason = this.details?.['reason'];
    return typeof reason === 'string' ? reason : undefined;
  }

  toJSON(): ServiceError {
    const plain: ServiceError = { code: this.code, message: this.message, retryable: this.retryable };
    if (this.details) plain.details = this.details;
    return plain;
  }
}

export function failure(
  code: ErrorCode,
  reason: string,
  message: string,
  retryable: boolean,
  details: Record<string, unknown> = {},
): TTSError {
  return new TTSError({ code, message, retryable, details: { reason, ...details } });
}

/** An error as it came over the wire, whatever it is. */
export function fromWire(payload: unknown): TTSError {
  const given = (payload ?? {}) as Partial<ServiceError>;
  const known = Object.values(ErrorCode) as string[];
  const code = known.includes(String(given.code)) ? (given.code as ErrorCode) : ErrorCode.SYNTHESIS_FAILED;
  const message = typeof given.message === 'string' ? given.message : 'the service answered with an error it does not explain';
  return new TTSError({ code, message, retryable: given.retryable === true, ...(given.details ? { details: given.details } : {}) });
}

/** What an aborted signal rejects with. */
export function aborted(signal: AbortSignal): unknown {
  return signal.reason ?? new DOMException('The operation was aborted', 'AbortError');
}
