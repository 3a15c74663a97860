// panics.rs: functions in Rust as sites, left by panics that are caught, in threads, too; see `rust`.

use std::panic;

#[inline(never)]
#[no_mangle]
pub extern "C-unwind" fn deepest(x: u64) -> u64 {
    let blocks: Vec<Box<u64>> = (0..20).map(|i| Box::new(i + x)).collect();
    if x % 5 > 2 {
        panic!("at {}", blocks[3]);
    }
    blocks.iter().map(|block| **block).sum()
}

#[inline(never)]
#[no_mangle]
pub extern "C-unwind" fn around(x: u64) -> u64 {
    let text = format!("{x:>40}");
    let sum = deepest(x);
    sum + text.len() as u64
}

fn run() -> (u64, u64) {
    let (mut sum, mut panics) = (0, 0);
    for i in 0..1000 {
        match panic::catch_unwind(|| around(i)) {
            Ok(result) => sum += result,
            Err(what) => panics += what.downcast_ref::<String>().unwrap().len() as u64,
        }
    }
    (sum, panics)
}

fn main() {
    panic::set_hook(Box::new(|_| {}));
    println!("{:?}", run());
    let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(run)).collect();
    for thread in threads {
        println!("{:?}", thread.join().unwrap());
    }
    println!("{}", std::thread::spawn(|| around(3)).join().is_err());
}
