/** What every error of forkstep says, in fields a test can match and in one sentence a person can act on. */
export interface ErrorDetails {
  /** The function, module or command that refused. */
  op: string;
  /** The argument, attribute, file or kernel that is at fault. */
  arg: string;
  /** The rule it breaks, as it reads after the argument's name: 'must be > 0'. */
  rule: string;
  /** The offending value; strings are printed as they are, so they may carry shapes and dtypes. */
  got: unknown;
  /** What to do about it. */
  fix: string;
}

/** `<op>: <arg> <rule>, got <got>; <fix>`. Base of all errors thrown on purpose. */
export class ForkstepError extends Error {
  readonly op: string;
  readonly arg: string;
  readonly got: unknown;
  /** The rule that was broken. */
  readonly expected: string;
  readonly fix: string;

  constructor(details: ErrorDetails, options?: ErrorOptions) {
    super(`${details.op}: ${details.arg} ${details.rule}, got ${formatGot(details.got)}; ${details.fix}`, options);
    this.name = new.target.name;
    this.op = details.op;
    this.arg = details.arg;
    this.got = details.got;
    this.expected = details.rule;
    this.fix = details.fix;
  }
}

/** A shape, rank or size that does not fit the operation. */
export class ShapeError extends ForkstepError {}
/** An element type that the operation does not take. */
export class DtypeError extends ForkstepError {}
/** A bad option or hyper-parameter. */
export class AttrError extends ForkstepError {}
/** WGSL that does not compile, or bindings and uniforms that do not fit it. */
export class KernelError extends ForkstepError {}
/** No adapter, a missing limit or feature, a lost device. */
export class DeviceError extends ForkstepError {}
/** A file or data set that is missing, damaged or of another format. */
export class DataError extends ForkstepError {}
/** A file that cannot be written: no space, no permission, a folder that went away. */
export class FileError extends ForkstepError {}

function formatGot(got: unknown): string {
  if (typeof got === 'string') return got;
  if (Array.isArray(got) || ArrayBuffer.isView(got)) return `[${Array.from(got as ArrayLike<unknown>, String).join(', ')}]`;
  return got === null || got === undefined ? String(got) : `${String(got)} (${typeof got})`;
}
