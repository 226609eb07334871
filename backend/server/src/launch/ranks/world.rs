//! Ranks over MPI.

use super::Together;
use anyhow::{Context, Result};
use moslim_engine::ranks::Ranks;
use mpi::datatype::PartitionMut;
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives};

/// All processes that were started together. Only the thread that has joined them speaks to them.
pub struct Mpi {
    world: SimpleCommunicator,
    /// Says goodbye when it goes.
    _universe: Universe,
}

impl Mpi {
    /// Joins them; once in a process.
    pub fn join() -> Result<Self> {
        let universe = mpi::initialize().context("MPI was joined before, or does not answer")?;
        Ok(Self { world: universe.world(), _universe: universe })
    }
}

impl Ranks for Mpi {
    fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    fn size(&self) -> usize {
        self.world.size() as usize
    }

    fn local(&self) -> usize {
        let number = |name: &str| std::env::var(name).ok()?.parse().ok();
        number("OMPI_COMM_WORLD_LOCAL_RANK").or_else(|| number("SLURM_LOCALID")).unwrap_or_else(|| self.rank())
    }

    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut sizes = vec![0u64; self.size()];
        self.world.all_gather_into(&(own.len() as u64), &mut sizes[..]);
        let counts: Vec<i32> = sizes.iter().map(|&n| i32::try_from(n)).collect::<Result<_, _>>().context("more than 2 GiB")?;
        let total: u64 = sizes.iter().sum();
        i32::try_from(total).context("more than 2 GiB from all ranks together")?;
        let starts: Vec<i32> = counts.iter().scan(0, |at, n| Some(std::mem::replace(at, *at + n))).collect();
        let mut all = vec![0u8; total as usize];
        self.world.all_gather_varcount_into(own, &mut PartitionMut::new(&mut all[..], &counts[..], &starts[..]));
        Ok(starts.iter().zip(&counts).map(|(&at, &n)| all[at as usize..(at + n) as usize].to_vec()).collect())
    }
}

impl Together for Mpi {
    fn abort(&self, code: u8) -> ! {
        self.world.abort(i32::from(code))
    }
}
