//! Runs AMX and AVX-VNNI code on a CPU that lacks them, for tests: a handler of SIGILL carries out the few instructions
//! that the kernels use, on tiles of its own and on the saved registers of the interrupted thread. So the machine code that
//! such a CPU would run is tested everywhere. Any other invalid instruction still ends the process.
//!
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2 (encodings, operation), volume 1 section
//! 13.4 (layout of the saved registers).

use std::arch::x86_64::__cpuid_count;
use std::cell::UnsafeCell;
use std::sync::OnceLock;

use libc::{SIG_DFL, SIGILL, c_int, c_void, siginfo_t, ucontext_t};

const TILES: usize = 8;
const TILE_ROWS: usize = 16;
const ROW_BYTES: usize = 64;
const YMM_BYTES: usize = 32;

/// Offsets in the saved registers: the low halves, Linux's own words, and what is valid.
const XMM_AT: usize = 160;
const MAGIC_AT: usize = 464;
const MAGIC: u32 = 0x4650_5853;
const VALID_AT: usize = 512;
/// Bits of the valid components.
const SSE: u64 = 1 << 1;
const AVX: u64 = 1 << 2;

/// Prefixes that are part of a VEX encoding.
const NONE: u8 = 0;
const P66: u8 = 1;
const PF3: u8 = 2;
const PF2: u8 = 3;

/// General registers in the order of their encoding.
const GENERAL: [c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// One tile with its configured shape; without one it cannot be used.
#[derive(Clone, Copy)]
struct Tile {
    rows: usize,
    row_bytes: usize,
    data: [[u8; ROW_BYTES]; TILE_ROWS],
}

const UNCONFIGURED: Tile = Tile { rows: 0, row_bytes: 0, data: [[0; ROW_BYTES]; TILE_ROWS] };

thread_local! {
    /// The tiles of this thread. A constant without a destructor: safe to use in a handler.
    static STATE: UnsafeCell<[Tile; TILES]> = const { UnsafeCell::new([UNCONFIGURED; TILES]) };
}

/// Where the high halves of 256-bit registers stand. It is asked for once: under a hypervisor CPUID is slow.
static HIGH_AT: OnceLock<usize> = OnceLock::new();

/// From here on instructions that are known and missing are emulated.
pub(super) fn install() {
    HIGH_AT.get_or_init(|| {
        // SAFETY: all zero is a valid `sigaction`; the handler has the signature that SA_SIGINFO asks for.
        let result = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_illegal_instruction as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigaction(SIGILL, &action, std::ptr::null_mut())
        };
        assert_eq!(result, 0);
        __cpuid_count(0xd, 2).ebx as usize
    });
}

extern "C" fn on_illegal_instruction(_: c_int, _: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the system passes the registers of the interrupted thread.
    let context = unsafe { &mut *context.cast::<ucontext_t>() };
    // SAFETY: the instruction pointer points at the instruction that could not be run.
    let done = unsafe { Instruction::decode(context).and_then(|instruction| instruction.run(context)) };
    if done.is_none() {
        // Not ours: it happens again, and ends the process.
        // SAFETY: restoring the default is always allowed.
        unsafe { libc::signal(SIGILL, SIG_DFL) };
    }
}

/// An instruction with a three-byte VEX prefix of the map 0F38.
struct Instruction {
    opcode: u8,
    prefix: u8,
    wide: bool,
    /// The register operands `reg` and `vvvv`.
    reg: usize,
    vvvv: usize,
    rm: Operand,
    /// The address of what follows.
    next: usize,
}

enum Operand {
    Register(usize),
    /// An address without the index, and the scaled index: to tiles, that is the distance of rows.
    Memory(usize, usize),
}

impl Instruction {
    /// # Safety
    /// The instruction pointer must point at an instruction.
    unsafe fn decode(context: &ucontext_t) -> Option<Self> {
        let mut at = usize::try_from(context.uc_mcontext.gregs[libc::REG_RIP as usize]).ok()?;
        let mut byte = || {
            // SAFETY: bytes are read only as far as the instruction goes.
            let byte = unsafe { (at as *const u8).read() };
            at += 1;
            byte
        };
        if byte() != 0xc4 {
            return None;
        }
        let (extensions, middle, opcode, modrm) = (byte(), byte(), byte(), byte());
        if extensions & 0x1f != 2 || middle & 0x80 != 0 {
            return None;
        }
        let extended = |low: u8, bit: u8| usize::from(low & 7) + if extensions & bit == 0 { 8 } else { 0 };
        let general = |number: usize| {
            let value = context.uc_mcontext.gregs[GENERAL[number] as usize];
            usize::from_ne_bytes(value.to_ne_bytes())
        };
        let mode = modrm >> 6;
        let rm = if mode == 3 {
            Operand::Register(extended(modrm, 0x20))
        } else {
            let (mut base, mut index) = (Some(extended(modrm, 0x20)), 0);
            let mut low = modrm & 7;
            if low == 4 {
                let sib = byte();
                let number = extended(sib >> 3, 0x40);
                index = if number == 4 { 0 } else { general(number) << (sib >> 6) };
                base = Some(extended(sib, 0x20));
                low = if sib & 7 == 5 { 8 } else { 4 };
            }
            let relative = mode == 0 && low == 5;
            if mode == 0 && (low == 5 || low == 8) {
                base = None;
            }
            let displacement = match mode {
                1 => i32::from(byte().cast_signed()),
                0 if base.is_some() => 0,
                _ => i32::from_le_bytes([byte(), byte(), byte(), byte()]),
            };
            let base = if relative { at } else { base.map_or(0, general) };
            Operand::Memory(base.wrapping_add_signed(displacement as isize), index)
        };
        Some(Instruction {
            opcode,
            prefix: middle & 3,
            wide: middle & 4 != 0,
            reg: extended(modrm >> 3, 0x80),
            vvvv: usize::from(!middle >> 3 & 15),
            rm,
            next: at,
        })
    }

    /// `None` if it is not known, or would fault.
    ///
    /// # Safety
    /// Its memory operand must be valid.
    unsafe fn run(self, context: &mut ucontext_t) -> Option<()> {
        // SAFETY: the caller vouches for the memory, and nothing else of this thread uses the tiles meanwhile.
        unsafe {
            if self.wide {
                self.run_wide(context)?;
            } else {
                STATE.with(|state| self.run_on_tiles(&mut *state.get()))?;
            }
        }
        context.uc_mcontext.gregs[libc::REG_RIP as usize] = self.next as i64;
        Some(())
    }

    /// # Safety
    /// As [`Instruction::run`].
    unsafe fn run_on_tiles(&self, tiles: &mut [Tile; TILES]) -> Option<()> {
        let (unused, reg) = (self.vvvv == 0, self.reg);
        // SAFETY: the caller vouches for the memory.
        unsafe {
            match (self.opcode, self.prefix, &self.rm) {
                (0x49, NONE, &Operand::Memory(address, index)) if unused && reg == 0 => {
                    *tiles = configured((address.wrapping_add(index) as *const [u8; 64]).read_unaligned())?;
                }
                (0x49, NONE, Operand::Register(0)) if unused && reg == 0 => *tiles = [UNCONFIGURED; TILES],
                (0x4b, PF2, &Operand::Memory(address, stride)) if unused => {
                    tiles.get_mut(reg)?.load(address, stride)?;
                }
                (0x4b, PF3, &Operand::Memory(address, stride)) if unused => {
                    tiles.get(reg)?.store(address, stride)?;
                }
                (0x5e, P66, &Operand::Register(a)) => {
                    let (rows, columns) = (*tiles.get(a)?, *tiles.get(self.vvvv)?);
                    let distinct = reg != a && reg != self.vvvv && a != self.vvvv;
                    tiles.get_mut(reg).filter(|_| distinct)?.add_products(&rows, &columns)?;
                }
                _ => return None,
            }
        }
        Some(())
    }

    /// `vpdpbusd` of 256-bit registers.
    ///
    /// # Safety
    /// As [`Instruction::run`].
    unsafe fn run_wide(&self, context: &mut ucontext_t) -> Option<()> {
        if (self.opcode, self.prefix) != (0x50, P66) {
            return None;
        }
        let mut saved = Saved::of(context)?;
        let (mut sums, rows) = (saved.read(self.reg), saved.read(self.vvvv));
        let codes = match self.rm {
            Operand::Register(number) => saved.read(number),
            // SAFETY: the caller vouches for the memory.
            Operand::Memory(address, index) => unsafe {
                (address.wrapping_add(index) as *const [u8; YMM_BYTES]).read_unaligned()
            },
        };
        let fours = rows.as_chunks::<4>().0.iter().zip(codes.as_chunks::<4>().0);
        for (sum, (rows, codes)) in sums.as_chunks_mut::<4>().0.iter_mut().zip(fours) {
            *sum = add_fours(*sum, *rows, *codes);
        }
        saved.write(self.reg, sums);
        Some(())
    }
}

/// A 32-bit sum plus the products of four unsigned with four signed bytes.
fn add_fours(sum: [u8; 4], unsigned: [u8; 4], signed: [u8; 4]) -> [u8; 4] {
    let products = unsigned.iter().zip(signed).map(|(&a, b)| i32::from(a) * i32::from(b.cast_signed()));
    i32::from_le_bytes(sum).wrapping_add(products.sum()).to_le_bytes()
}

/// What `ldtilecfg` makes of its operand: palette, start row, 14 reserved bytes, 16 row lengths, 16 row counts.
fn configured(config: [u8; 64]) -> Option<[Tile; TILES]> {
    let mut tiles = [UNCONFIGURED; TILES];
    let plain = config[0] == 1 && config[1..16].iter().all(|&byte| byte == 0);
    for (number, tile) in tiles.iter_mut().enumerate() {
        let row_bytes = u16::from_le_bytes([config[16 + 2 * number], config[17 + 2 * number]]);
        (tile.rows, tile.row_bytes) = (config[48 + number].into(), row_bytes.into());
        if tile.rows > TILE_ROWS || tile.row_bytes > ROW_BYTES || (tile.rows == 0) != (tile.row_bytes == 0) {
            return None;
        }
    }
    plain.then_some(tiles)
}

impl Tile {
    /// # Safety
    /// The memory must be readable.
    unsafe fn load(&mut self, address: usize, stride: usize) -> Option<()> {
        self.data = [[0; ROW_BYTES]; TILE_ROWS];
        for (number, row) in self.data[..self.rows].iter_mut().enumerate() {
            let from = address.wrapping_add(number.wrapping_mul(stride)) as *const u8;
            // SAFETY: the caller vouches for the memory.
            unsafe { std::ptr::copy_nonoverlapping(from, row.as_mut_ptr(), self.row_bytes) };
        }
        (self.rows > 0).then_some(())
    }

    /// # Safety
    /// The memory must be writable.
    unsafe fn store(&self, address: usize, stride: usize) -> Option<()> {
        for (number, row) in self.data[..self.rows].iter().enumerate() {
            let to = address.wrapping_add(number.wrapping_mul(stride)) as *mut u8;
            // SAFETY: the caller vouches for the memory.
            unsafe { std::ptr::copy_nonoverlapping(row.as_ptr(), to, self.row_bytes) };
        }
        (self.rows > 0).then_some(())
    }

    /// `tdpbusd`.
    fn add_products(&mut self, rows: &Tile, columns: &Tile) -> Option<()> {
        let fits = self.rows == rows.rows
            && self.row_bytes == columns.row_bytes
            && columns.rows * 4 == rows.row_bytes;
        for (sums, row) in self.data[..self.rows].iter_mut().zip(&rows.data) {
            for (&unsigned, columns) in row.as_chunks().0.iter().zip(&columns.data[..columns.rows]) {
                for (sum, &signed) in sums.as_chunks_mut().0.iter_mut().zip(columns.as_chunks().0) {
                    *sum = add_fours(*sum, unsigned, signed);
                }
            }
        }
        (fits && self.rows > 0).then_some(())
    }
}

/// The vector registers of the interrupted thread, as XSAVE lays them out; they are loaded again when the handler returns.
struct Saved {
    area: *mut u8,
    high_at: usize,
}

impl Saved {
    /// `None` if they were saved without the high halves of 256-bit registers.
    fn of(context: &mut ucontext_t) -> Option<Self> {
        let area = context.uc_mcontext.fpregs.cast::<u8>();
        // SAFETY: the system always passes at least the 512 bytes of FXSAVE.
        let magic = unsafe { area.add(MAGIC_AT).cast::<u32>().read_unaligned() };
        HIGH_AT.get().filter(|_| magic == MAGIC).map(|&high_at| Saved { area, high_at })
    }

    /// The low and the high half of a register. A component that is not valid is zero.
    fn read(&self, register: usize) -> [u8; YMM_BYTES] {
        let mut value = [0; YMM_BYTES];
        for (half, (component, at)) in self.halves(register).into_iter().enumerate() {
            // SAFETY: both components stand in the area.
            unsafe {
                if self.area.add(VALID_AT).cast::<u64>().read_unaligned() & component != 0 {
                    let target = value.as_mut_ptr().add(16 * half);
                    std::ptr::copy_nonoverlapping(self.area.add(at), target, 16);
                }
            }
        }
        value
    }

    fn write(&mut self, register: usize, value: [u8; YMM_BYTES]) {
        for (half, (component, at)) in self.halves(register).into_iter().enumerate() {
            // SAFETY: both components stand in the area, which is the handler's to change.
            unsafe {
                let valid = self.area.add(VALID_AT).cast::<u64>();
                let before = valid.read_unaligned();
                if before & component == 0 {
                    let start = at - 16 * register;
                    self.area.add(start).write_bytes(0, 16 * 16);
                    valid.write_unaligned(before | component);
                }
                std::ptr::copy_nonoverlapping(value.as_ptr().add(16 * half), self.area.add(at), 16);
            }
        }
    }

    fn halves(&self, register: usize) -> [(u64, usize); 2] {
        [(SSE, XMM_AT + 16 * register), (AVX, self.high_at + 16 * register)]
    }
}

#[test]
fn other_invalid_instructions_still_end_the_process() {
    install();
    // SAFETY: the child runs one instruction, which ends it.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            std::arch::asm!("ud2", options(noreturn));
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &mut status, 0), child);
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == SIGILL, "{status}");
    }
}
