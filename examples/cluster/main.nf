// Predict a folder in parts: nextflow run main.nf --run RUN --images IMAGES --masks OUTPUT
// The paths must be absolute, because each task runs in a folder of its own.
params.parts = 8

process PREDICT_PART {
    cpus 4
    memory '8 GB'
    // Exit code 2: a mistake, or an image that could not be predicted, which GATHER reports for all parts at the end.
    errorStrategy { task.exitStatus == 2 ? 'ignore' : 'retry' }
    maxRetries 2

    input:
    val number

    output:
    val number

    script:
    """
    export OMP_NUM_THREADS=${task.cpus}
    ushape predict '${params.run}' '${params.images}' -o '${params.masks}' --part ${number}/${params.parts}
    """
}

process GATHER {
    cpus 4
    memory '8 GB'

    input:
    val numbers

    script:
    """
    export OMP_NUM_THREADS=${task.cpus}
    ushape predict '${params.run}' '${params.images}' -o '${params.masks}' --part 1/1
    """
}

workflow {
    numbers = PREDICT_PART(Channel.of(1..params.parts))
    GATHER(numbers.toList())  // Also if all parts ended with exit code 2.
}
