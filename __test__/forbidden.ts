/** What starts a program whose system calls are refused, as a sandbox refuses them. */
import { constants } from 'node:os'
import type { TestContext } from 'vitest'
import { has } from './disks.js'
import { lacks } from './helpers.js'

/** The calls of io_uring: the same numbers on every processor. */
export const ioUring = { setup: 425, enter: 426, register: 427 } as const

/** The number of `prctl`, with which a filter is set. */
const prctl = { x64: 157, arm64: 167 } as Record<string, number>

/**
 * A filter that answers some calls with an error, and is handed on to whatever is executed: arguments are the number of
 * `prctl`, the error, the calls, `--` and the command. The instructions are those of the kernel's socket filters: load the
 * call's number; where it is one of these, jump to the answer; else allow.
 */
const filtering = `
my ($prctl, $errno, @calls);
($prctl, $errno) = splice @ARGV, 0, 2;
push @calls, shift @ARGV while $ARGV[0] ne '--';
shift @ARGV;
my @steps = pack 'SCCL', 0x20, 0, 0, 0;
push @steps, pack 'SCCL', 0x15, @calls - $_, 0, $calls[$_] for 0 .. $#calls;
push @steps, pack('SCCL', 0x06, 0, 0, 0x7fff0000), pack('SCCL', 0x06, 0, 0, 0x00050000 | $errno);
my $filter = join '', @steps;
my $program = pack 'S x![P] P', scalar @steps, $filter;
syscall($prctl, 38, 1, 0, 0, 0) == 0 or die "no new privileges: $!";
syscall($prctl, 22, 2, $program) == 0 or die "seccomp: $!";
exec @ARGV or die "$ARGV[0]: $!";
`

/** What comes before a command so that these calls answer `error`. */
export function refusing(
  context: TestContext,
  error: 'EPERM' | 'ENOSYS' | 'ENOMEM',
  ...calls: readonly number[]
): string[] {
  const number = prctl[process.arch]
  if (number === undefined) context.skip(`the number of prctl on ${process.arch} is not known here`)
  if (!has('perl')) lacks(context, 'seccomp', 'perl, which sets the filter, is missing')
  return ['perl', '-e', filtering, String(number), String(constants.errno[error]), ...calls.map(String), '--']
}
