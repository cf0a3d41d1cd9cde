//! System calls that are refused, as a sandbox does.

use rustix::io::Errno;

/// From here on this thread's calls of `number` are answered with `errno`. `false` where this machine has no
/// such filters.
pub(crate) fn refuse(number: libc::c_long, errno: Errno) -> bool {
    let number = u32::try_from(number).unwrap();
    let step = |code: u32, jump_false, value| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: jump_false,
        k: value,
    };
    let answer = libc::SECCOMP_RET_ERRNO | errno.raw_os_error().cast_unsigned();
    let mut filter = [
        // The call's number is the first thing that a filter can see.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, number),
        step(libc::BPF_RET | libc::BPF_K, 0, answer),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: it takes four numbers and no pointer.
    let renounced = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } == 0;
    // SAFETY: the kernel copies the program, which lives on this stack, before the call returns.
    let filtered =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) } == 0;
    renounced && filtered
}
