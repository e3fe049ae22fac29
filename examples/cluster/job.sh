#!/bin/bash
#SBATCH --job-name=ushape-predict
#SBATCH --array=1-8
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --output=%x-%A_%a.log

# Predict the part of the images that belongs to this task: sbatch job.sh RUN IMAGES OUTPUT [OPTION]...
set -euo pipefail
export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"
exec ushape predict "$1" "$2" -o "$3" "${@:4}"
