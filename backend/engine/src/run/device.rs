//! Which device a run computes on, and why.

use anyhow::{Result, bail};
use burn_flex::FlexDevice;
use moslim_shared::config::DeviceChoice;
use moslim_shared::event::DeviceReport;
use serde::Serialize;

/// A device of a backend that this build contains.
pub enum Device {
    Cpu(FlexDevice),
    #[cfg(feature = "cuda")]
    Cuda(burn::backend::cuda::CudaDevice),
    #[cfg(feature = "wgpu")]
    Wgpu(burn::backend::wgpu::WgpuDevice),
}

#[cfg(feature = "cuda")]
mod cuda {
    use crate::model::kernels::Kernels;
    use burn::backend::{Autodiff, Cuda};
    impl Kernels for Cuda {}
    impl Kernels for Autodiff<Cuda> {}
}

#[cfg(feature = "wgpu")]
mod wgpu_backend {
    use crate::model::kernels::Kernels;
    use burn::backend::{Autodiff, Wgpu};
    impl Kernels for Wgpu {}
    impl Kernels for Autodiff<Wgpu> {}
}

/// A device as `moslim-lab devices` lists it.
#[derive(Debug, Clone, Serialize)]
pub struct DeviceEntry {
    /// `cuda`, `wgpu` or `cpu`.
    pub device: String,
    pub name: String,
    pub available: bool,
    /// Whether a run with `device = auto` takes it.
    pub chosen: bool,
    pub reason: String,
}

/// What was found out about one kind of device.
struct Finding {
    device: &'static str,
    name: String,
    available: bool,
    /// Whether `auto` may take it.
    preferred: bool,
    reason: String,
}

/// Name of the processor, where the system tells.
fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .and_then(|l| l.split_once(':'))
        .map(|(_, n)| n.trim().to_string());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{} ({threads} threads)", model.unwrap_or_else(|| std::env::consts::ARCH.to_string()))
}

/// CUDA: asks the driver for devices in a way that survives a missing or broken driver.
fn find_cuda() -> Finding {
    let missing = |reason: String| Finding { device: "cuda", name: String::new(), available: false, preferred: false, reason };
    #[cfg(not(feature = "cuda"))]
    return missing("this build has no CUDA backend; build with --features cuda".into());
    #[cfg(feature = "cuda")]
    {
        keep_kernels();
        // The driver library is loaded on first use, and its absence is a panic there.
        let found = quietly(|| {
            use burn::tensor::{Tensor, TensorData};
            let device = burn::backend::cuda::CudaDevice::default();
            let x = Tensor::<burn::backend::Cuda, 1>::from_data(TensorData::from([1.0f32, 2.0]), &device);
            x.sum().into_scalar() == 3.0
        });
        match found {
            Some(true) => Finding {
                device: "cuda",
                name: cuda_name(),
                available: true,
                preferred: true,
                reason: "an NVIDIA driver answers".into(),
            },
            Some(false) => missing("the CUDA device computes wrong sums".into()),
            None => missing("no NVIDIA driver answers".into()),
        }
    }
}

/// Keeps compiled kernels in the user's cache: every run is a process of its own, and would compile them anew.
#[cfg(feature = "cuda")]
fn keep_kernels() {
    use cubecl_runtime::config::{CubeClRuntimeConfig, RuntimeConfig, cache::CacheConfig};
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
        let folder = |name| std::env::var_os(name).map(std::path::PathBuf::from);
        let cache = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
        if let (None, Some(cache)) = (&config.compilation.cache, cache) {
            config.compilation.cache = Some(CacheConfig::File(cache.join("moslim-lab")));
        }
        CubeClRuntimeConfig::set(config);
    });
}

#[cfg(feature = "cuda")]
fn cuda_name() -> String {
    let read = |folder: std::fs::DirEntry| std::fs::read_to_string(folder.path().join("information")).ok();
    std::fs::read_dir("/proc/driver/nvidia/gpus")
        .ok()
        .and_then(|folders| folders.flatten().find_map(read))
        .and_then(|text| text.lines().find_map(|l| l.strip_prefix("Model:").map(|n| n.trim().to_string())))
        .unwrap_or_else(|| "NVIDIA GPU".into())
}

/// Runs `f`, and turns a panic of a driver into `None` without a word on the terminal.
#[cfg(any(feature = "cuda", feature = "wgpu"))]
fn quietly<T>(f: impl FnOnce() -> T + std::panic::UnwindSafe) -> Option<T> {
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = std::panic::catch_unwind(f).ok();
    std::panic::set_hook(hook);
    result
}

/// wgpu: lists Vulkan adapters. One that is emulated in software is available but never preferred to the CPU backend.
fn find_wgpu() -> Finding {
    let missing = |reason: String| Finding { device: "wgpu", name: String::new(), available: false, preferred: false, reason };
    #[cfg(not(feature = "wgpu"))]
    return missing("this build has no wgpu backend; build with --features wgpu".into());
    #[cfg(feature = "wgpu")]
    {
        let adapters = quietly(|| {
            let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
            descriptor.backends = wgpu::Backends::VULKAN;
            let instance = wgpu::Instance::new(descriptor);
            let adapters = futures_executor(instance.enumerate_adapters(wgpu::Backends::VULKAN));
            adapters.iter().map(|a| a.get_info()).map(|i| (i.name, i.device_type)).collect::<Vec<_>>()
        });
        let Some(adapters) = adapters else { return missing("no Vulkan loader answers".into()) };
        let hardware = adapters.iter().find(|(_, kind)| {
            matches!(kind, wgpu::DeviceType::DiscreteGpu | wgpu::DeviceType::IntegratedGpu | wgpu::DeviceType::VirtualGpu)
        });
        match (hardware, adapters.first()) {
            (Some((name, kind)), _) => Finding {
                device: "wgpu",
                name: name.clone(),
                available: true,
                preferred: true,
                reason: format!("a Vulkan adapter answers ({kind:?})"),
            },
            (None, Some((name, _))) => Finding {
                device: "wgpu",
                name: name.clone(),
                available: true,
                preferred: false,
                reason: "its only Vulkan adapter is emulated in software, which is slower than the CPU backend".into(),
            },
            (None, None) => missing("no Vulkan adapter".into()),
        }
    }
}

/// Waits for a future that only needs polling.
#[cfg(feature = "wgpu")]
fn futures_executor<T>(future: impl std::future::Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        std::thread::yield_now();
    }
}

fn find_cpu() -> Finding {
    Finding { device: "cpu", name: processor(), available: true, preferred: true, reason: "always available".into() }
}

/// Every kind of device, most preferred first, with the one that `auto` takes marked.
pub fn devices() -> Vec<DeviceEntry> {
    let mut taken = false;
    [find_cuda(), find_wgpu(), find_cpu()]
        .into_iter()
        .map(|f| {
            let chosen = !taken && f.available && f.preferred;
            taken |= chosen;
            DeviceEntry { device: f.device.into(), name: f.name, available: f.available, chosen, reason: f.reason }
        })
        .collect()
}

/// Number of the device of the `local`th rank of a machine. Where fewer are visible (`CUDA_VISIBLE_DEVICES`), ranks share them; a launcher
/// that gives every rank its own shows each only this one.
#[cfg(any(feature = "cuda", test))]
fn own_device(local: usize, visible: Option<&str>) -> usize {
    let count = visible.map_or(0, |v| v.split(',').filter(|d| !d.trim().is_empty()).count());
    if count == 0 { local } else { local % count }
}

fn open(finding: &Finding) -> Device {
    match finding.device {
        #[cfg(feature = "cuda")]
        "cuda" => {
            let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
            Device::Cuda(burn::backend::cuda::CudaDevice { index: own_device(crate::ranks::local(), visible.as_deref()) })
        }
        #[cfg(feature = "wgpu")]
        "wgpu" => Device::Wgpu(Default::default()),
        _ => Device::Cpu(FlexDevice),
    }
}

/// The device for `choice`, and the reason.
///
/// # Errors
/// When a device is forced that is not available; the message says why.
pub fn choose(choice: DeviceChoice) -> Result<(Device, DeviceReport)> {
    let report = |f: &Finding, reason: String| DeviceReport { device: f.device.into(), name: f.name.clone(), reason };
    let forced = match choice {
        DeviceChoice::Auto => {
            let mut reasons = Vec::new();
            for find in [find_cuda, find_wgpu, find_cpu] {
                let f = find();
                if f.available && f.preferred {
                    let reason = if reasons.is_empty() { f.reason.clone() } else { reasons.join("; ") };
                    return Ok((open(&f), report(&f, reason)));
                }
                reasons.push(format!("{}: {}", f.device, f.reason));
            }
            unreachable!("the CPU is always available");
        }
        DeviceChoice::Cpu => find_cpu(),
        DeviceChoice::Cuda => find_cuda(),
        DeviceChoice::Wgpu => find_wgpu(),
    };
    if !forced.available {
        bail!("device {} is not available: {}; `moslim-lab devices` lists what is", forced.device, forced.reason);
    }
    let reason = "asked for".to_string();
    Ok((open(&forced), report(&forced, reason)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rank_of_a_machine_has_a_device_of_its_own_where_there_are_enough() {
        assert_eq!([0, 3].map(|rank| own_device(rank, None)), [0, 3]);
        assert_eq!([0, 1, 2, 3].map(|rank| own_device(rank, Some("4,7"))), [0, 1, 0, 1]);
        assert_eq!((own_device(2, Some("5")), own_device(2, Some(""))), (0, 2));
    }
}
