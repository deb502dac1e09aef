//! Numbers and lengths, the same for every allocator.

/// Where the numbers begin if nobody says otherwise.
pub const SEED: u64 = 0x9E37_79B9_7F4A_7C15;

/// xorshift64*.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    #[inline]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    #[inline]
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// From 0 up to, not including, 1.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// How long the runs of a workload are, in extents of 1 MiB.
#[derive(Clone, Copy, Debug)]
pub enum Lengths {
    /// A power law with exponent 1 from `shortest` to `longest`: most short, most of the space in long ones.
    PowerLaw { shortest: f64, longest: f64 },
    /// 1 << U(0..9), as Ceph's allocator benchmark has it.
    Ceph,
}

impl Lengths {
    #[expect(clippy::cast_sign_loss, reason = "lengths are positive")]
    fn draw(self, random: &mut Random) -> u64 {
        match self {
            Self::PowerLaw { shortest, longest } => {
                let least = shortest / longest;
                (shortest / (least + (1.0 - least) * random.fraction())) as u64
            }
            Self::Ceph => 1 << random.below(10),
        }
    }

    /// A table of drawn lengths, so that drawing costs the workload nothing.
    pub fn table(self, random: &mut Random) -> Vec<u64> {
        (0..1 << 14).map(|_| self.draw(random)).collect()
    }
}
