//! The locked requirements as uv exports them, and their division where PyTorch comes from its own index. Pure.
//!
//! A requirement is a line `name==version ; marker \` with its hashes on indented lines below.

/// Packages that the CUDA build of PyTorch brings, and PyTorch's own; a build for the CPU needs none of the former.
const TORCH: [&str; 3] = ["torch", "torchaudio", "torchcodec"];
const CUDA_BEGINNINGS: [&str; 3] = ["nvidia-", "cuda-", "triton"];

/// The locked set, divided.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Divided {
    /// PyTorch's own packages, as `name==version`.
    pub(crate) torch: Vec<String>,
    /// All the rest, with hashes, without what only CUDA needs.
    pub(crate) rest: String,
}

/// Divides an exported list.
pub(crate) fn divide(exported: &str) -> Divided {
    let mut divided = Divided { torch: Vec::new(), rest: String::new() };
    let mut keep = true;
    for line in exported.lines() {
        if !line.starts_with([' ', '#']) {
            let pin = line.split([' ', ';', '\\']).next().unwrap_or_default();
            let name = pin.split("==").next().unwrap_or_default();
            let torch = TORCH.contains(&name);
            if torch {
                divided.torch.push(pin.to_owned());
            }
            keep = !torch && !CUDA_BEGINNINGS.iter().any(|beginning| name.starts_with(beginning));
        }
        if keep {
            divided.rest.push_str(line);
            divided.rest.push('\n');
        }
    }
    divided
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torch_and_cuda_are_taken_out_with_their_hashes() {
        let exported = "six==1.17.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n\
                        nvidia-cublas==13.1 ; sys_platform == 'linux' \\\n    --hash=sha256:cc\n\
                        torch==2.11.0 \\\n    --hash=sha256:dd\n\
                        triton==3.6.0 ; sys_platform == 'linux' \\\n    --hash=sha256:ee\n\
                        tqdm==4.70.1 \\\n    --hash=sha256:ff\n";
        let divided = divide(exported);
        assert_eq!(divided.torch, ["torch==2.11.0"]);
        let rest = "six==1.17.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\ntqdm==4.70.1 \\\n    --hash=sha256:ff\n";
        assert_eq!(divided.rest, rest);
    }
}
