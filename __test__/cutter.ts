/** Cuts the power of a disk, as far as its file system can tell. */
import { spawn } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, onTestFinished, type TestContext } from 'vitest'
import { has, type LoopDisk } from './disks.js'
import { lacks } from './helpers.js'

/** Waits for a line, looks how much was acknowledged, cuts: EXT4_IOC_SHUTDOWN without a flush of the journal. */
const cutting = `
open my $disk, '<', $ARGV[0] or die "open: $!";
my $flags = pack 'L', 2;
print "ready\\n";
<STDIN>;
my $known = -s $ARGV[1];
ioctl $disk, 0x8004587d, $flags or die "ioctl: $!";
print "$known\\n";
`

/** What cuts the power of a disk, ready to do it; answers how long the file of acknowledgements was just before. */
export async function cutter(
  context: TestContext,
  disk: LoopDisk,
  acknowledgements: string,
): Promise<() => Promise<number>> {
  if (!has('perl')) lacks(context, 'shutdown', 'perl, which makes the call, is missing')
  const program = spawn('perl', ['-e', `$| = 1; ${cutting}`, disk.directory, acknowledgements])
  onTestFinished(() => {
    program.kill('SIGKILL')
  })
  let output = ''
  let errors = ''
  program.stdout.on('data', chunk => {
    output += String(chunk)
  })
  program.stderr.on('data', chunk => {
    errors += String(chunk)
  })
  const ended = new Promise<number | null>(resolve => program.once('close', resolve))
  while (!output.includes('ready')) {
    expect(errors).toBe('')
    await sleep(2)
  }
  return async () => {
    program.stdin.write('\n')
    if ((await ended) !== 0) lacks(context, 'shutdown', `this kernel cannot shut an ext4 down: ${errors}`)
    return Number(output.split('\n')[1])
  }
}
